"""Large segments get lists if these find what exact search finds, and are searched exactly if not."""

import logging
from pathlib import Path

import numpy as np
import pytest

from indexer.segment import lists
from indexer.segment.plan import Plan
from indexer.segment.seismic import SEISMIC
from indexer.segment.sparse import Sparse, write_sparse
from tests.indexer.segment.test_sparse import CEILING, asked, rows_of

ROWS, WORDS = 5_000, 3_000


@pytest.fixture
def small_is_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lists, "LARGE", ROWS)


def topics() -> list[dict[int, float]]:
    """Hundred topics of thirty words each, and a few words tell most of a passage."""
    rng = np.random.default_rng(1)
    return [
        {30 * (row % 100) + int(word): 6 * 0.6**place for place, word in enumerate(rng.choice(30, 15, False))}
        for row in range(ROWS)
    ]


def noise() -> list[dict[int, float]]:
    """Every word anywhere, all about as heavy: a score is the sum of many small parts."""
    rng = np.random.default_rng(1)
    return [
        {int(word): float(rng.uniform(0.9, 1.1)) for word in rng.choice(120, 40, False)} for _ in range(ROWS)
    ]


def written(folder: Path, rows: list[dict[int, float]]) -> Sparse:
    write_sparse(folder / "sparse.bin", rows_of(*rows), CEILING, WORDS)
    lists.add_lists(folder / "sparse.bin")
    return Sparse(folder / "sparse.bin")


def test_lists_that_find_what_they_should_are_kept_and_used(tmp_path: Path, small_is_large: None) -> None:
    sparse = written(tmp_path, topics())
    assert (tmp_path / SEISMIC).exists()
    assert lists.recall(sparse) >= lists.ENOUGH
    question = asked({30 * 7 + word: 1.0 + word / 30 for word in range(30)})
    exact, found = (sparse.search(question, 10, plan=Plan(way)) for way in ("exact", "approximate"))
    assert [each.tolist() for each in found] == [each.tolist() for each in exact]


def test_lists_that_miss_too_much_are_not_kept_and_it_is_said(
    tmp_path: Path, small_is_large: None, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, logger="indexer.segment.lists"):
        sparse = written(tmp_path, noise())
    assert not (tmp_path / SEISMIC).exists()
    assert "all searches will be exact" in caplog.text
    question = asked({word: 1.0 + word / 120 for word in range(0, 120, 4)})
    exact, found = (sparse.search(question, 10, plan=Plan(way)) for way in ("exact", "approximate"))
    assert [each.tolist() for each in found] == [each.tolist() for each in exact]


def test_small_segments_get_none(tmp_path: Path) -> None:
    written(tmp_path, topics()[:50])
    assert not (tmp_path / SEISMIC).exists()
