"""Three passages over a vocabulary of five entries, and random ones against a brute-force product."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from indexer.segment.sparse import Question, Sparse, merge_sparse, question, step_of, write_sparse

CEILING = 8.0
STEP = step_of(CEILING)


class Rows(NamedTuple):
    offsets: NDArray[np.int64]
    terms: NDArray[np.int32]
    weights: NDArray[np.float32]


def rows_of(*rows: dict[int, float]) -> Rows:
    offsets = np.cumsum([0, *map(len, rows)])
    terms = [term for row in rows for term in sorted(row)]
    weights = [row[term] for row in rows for term in sorted(row)]
    return Rows(offsets, np.array(terms, np.int32), np.array(weights, np.float32))


def asked(terms: dict[int, float]) -> Question:
    return question(
        np.array(sorted(terms), np.int32), np.array([terms[t] for t in sorted(terms)], np.float32), STEP
    )


THREE = rows_of({0: 1.0, 2: 2.0}, {2: 1.0, 4: 3.0}, {1: 0.5})


@pytest.fixture
def three(tmp_path: Path) -> Sparse:
    write_sparse(tmp_path / "sparse.bin", THREE, CEILING, 5)
    return Sparse(tmp_path / "sparse.bin")


def test_the_step_is_a_power_of_two_that_sixteen_bits_of_reach_the_ceiling() -> None:
    assert step_of(8.0) == 2**-13
    assert step_of(5.0) == 2**-13


def test_scores_are_dot_products(three: Sparse) -> None:
    rows, scores = three.search(asked({0: 1.0, 2: 1.0}), 10)
    assert rows.tolist() == [0, 1]
    assert scores.tolist() == pytest.approx([3.0, 1.0], rel=1e-4)


def test_equal_scores_go_by_row(tmp_path: Path) -> None:
    write_sparse(tmp_path / "sparse.bin", rows_of({1: 1.0}, {1: 2.0}, {1: 1.0}, {1: 2.0}), CEILING, 2)
    rows, _ = Sparse(tmp_path / "sparse.bin").search(asked({1: 1.0}), 3)
    assert rows.tolist() == [1, 3, 0]


def test_a_row_that_shares_no_term_is_not_found_and_unknown_terms_find_nothing(three: Sparse) -> None:
    assert three.search(asked({3: 1.0}), 10)[0].tolist() == []
    assert three.search(asked({}), 10)[0].tolist() == []


def test_only_allowed_rows_are_found(three: Sparse) -> None:
    rows, _ = three.search(asked({2: 1.0}), 10, np.array([False, True, True]))
    assert rows.tolist() == [1]


def test_contributions_sum_to_the_score(three: Sparse) -> None:
    parts = three.contributions(asked({0: 2.0, 2: 1.0, 3: 1.0}), 0)
    assert parts.tolist() == pytest.approx([2.0, 2.0, 0.0], rel=1e-4)
    assert three.scores(asked({0: 2.0, 2: 1.0}), np.array([0, 2])).tolist() == pytest.approx(
        [4.0, 0.0], rel=1e-4
    )


def test_stored_vectors_come_back_heaviest_first(three: Sparse) -> None:
    offsets, terms, weights = three.vectors(np.array([1, 2]))
    assert offsets.tolist() == [0, 2, 3]
    assert terms.tolist() == [4, 2, 1]
    assert weights.tolist() == pytest.approx([3.0, 1.0, 0.5], rel=1e-3)


def test_bad_weights_are_refused(tmp_path: Path) -> None:
    for bad in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="cannot be ranked"):
            write_sparse(tmp_path / "sparse.bin", rows_of({1: bad}), CEILING, 5)


def test_pieces_are_counted_over_live_rows(tmp_path: Path) -> None:
    said = [np.array([0, 3], np.int32), np.array([3], np.int32), np.array([], np.int32)]
    write_sparse(tmp_path / "sparse.bin", THREE, CEILING, 5, said)
    sparse = Sparse(tmp_path / "sparse.bin")
    assert sparse.piece_frequencies().tolist() == [1, 0, 0, 2, 0]
    assert sparse.piece_frequencies(np.array([True, False, True])).tolist() == [0, 0, 0, 1, 0]
    merge_sparse(tmp_path / "merged.bin", [(sparse, np.array([False, True, True]))])
    assert Sparse(tmp_path / "merged.bin").piece_frequencies().tolist() == [0, 0, 0, 1, 0]


def random_rows(seed: int, rows: int, vocabulary: int = 60, most: int = 50) -> list[dict[int, float]]:
    rng = np.random.default_rng(seed)
    return [
        {int(t): float(rng.uniform(0.001, 7.9)) for t in rng.choice(vocabulary, rng.integers(0, most), False)}
        for _ in range(rows)
    ]


def brute(rows: list[dict[int, float]], wanted: Question) -> list[tuple[int, int]]:
    """(score in the kernels' 24 bits, row) of all rows that match, best first."""
    weights = dict(zip(wanted.terms.tolist(), wanted.weights.tolist(), strict=True))
    sums = [
        sum(w * max(1, min(65535, round(np.float32(row[t]) / STEP))) for t, w in weights.items() if t in row)
        for row in rows
    ]
    return sorted((-((total >> 8) + 1), row) for row, total in enumerate(sums) if total)


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1), rows=st.integers(1, 120), k=st.integers(1, 130), terms=st.integers(0, 40)
)
def test_exact_search_is_brute_force(
    tmp_path_factory: pytest.TempPathFactory, seed: int, rows: int, k: int, terms: int
) -> None:
    path = tmp_path_factory.mktemp("sparse") / "sparse.bin"
    data = random_rows(seed, rows)
    write_sparse(path, rows_of(*data), CEILING, 60)
    rng = np.random.default_rng(seed)
    wanted = asked({int(t): float(rng.uniform(0.01, 3)) for t in rng.choice(60, terms, False)})
    found, scores = Sparse(path).search(wanted, k)
    expected = brute(data, wanted)[:k]
    assert found.tolist() == [row for _, row in expected]
    assert scores.tolist() == [-score * 256 * wanted.factor for score, _ in expected]


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), rows=st.integers(2, 80), at=st.integers(1, 79))
def test_two_segments_and_their_merge_give_the_same_scores(
    tmp_path_factory: pytest.TempPathFactory, seed: int, rows: int, at: int
) -> None:
    folder = tmp_path_factory.mktemp("sparse")
    data, cut = random_rows(seed, rows), min(at, rows - 1)
    wanted = asked({int(t): 0.1 + t / 50 for t in range(0, 60, 3)})
    keep = np.random.default_rng(seed).random(rows) < 0.7
    parts = []
    for name, part in (("a", data[:cut]), ("b", data[cut:])):
        write_sparse(folder / name, rows_of(*part), CEILING, 60)
        parts.append(Sparse(folder / name))
    write_sparse(
        folder / "whole", rows_of(*(row for row, kept in zip(data, keep, strict=True) if kept)), CEILING, 60
    )
    merge_sparse(folder / "merged", [(parts[0], keep[:cut]), (parts[1], keep[cut:])])
    whole, merged = (Sparse(folder / name).search(wanted, rows) for name in ("whole", "merged"))
    assert [found.tolist() for found in merged] == [found.tolist() for found in whole]
    apart = [
        part.search(wanted, rows, mask) for part, mask in zip(parts, (keep[:cut], keep[cut:]), strict=True)
    ]
    scores = np.sort(np.concatenate([found[1] for found in apart]))[::-1]
    assert scores.tolist() == whole[1].tolist()
