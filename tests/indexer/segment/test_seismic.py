"""The approximate index at its exact limits, and a block's summary that can be checked in the head."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from indexer.kernels.seismic import Knobs
from indexer.segment.arrays import open_arrays
from indexer.segment.seismic import Seismic, Size, bits, write_seismic
from indexer.segment.sparse import Sparse, write_sparse
from tests.indexer.segment.test_sparse import CEILING, STEP, asked, random_rows, rows_of

EVERYTHING = Size(share=1.0, longest=60.0, rows_per_block=4.0, energy=1.0)
WORDS = 60


def lists_of(folder: Path, rows: list[dict[int, float]], size: Size = EVERYTHING) -> tuple[Sparse, Seismic]:
    write_sparse(folder / "sparse.bin", rows_of(*rows), CEILING, WORDS)
    sparse = Sparse(folder / "sparse.bin")
    write_seismic(folder / "lists.bin", sparse.forward, sparse.starts, sparse.postings, size)
    return sparse, Seismic(folder / "lists.bin", sparse.forward)


def open_to_all(rows: int) -> np.ndarray:
    return bits(np.zeros(rows, np.bool_))


def test_bits_are_in_words_the_lowest_first() -> None:
    assert bits(np.array([True, False, True])).tolist() == [5]
    assert bits(np.arange(40) == 33).tolist() == [0, 2]


def test_a_summary_keeps_the_largest_maxima_until_their_sum_is_the_energys_share(tmp_path: Path) -> None:
    """Maxima are 3, 4, 1 and 2 of 10 together: 4 is not 6 of them, 4 and 3 are."""
    rows = [{1: 4.0, 2: 1.0, 4: 2.0}, {0: 3.0, 1: 1.0, 4: 2.0}]
    sparse, _ = lists_of(tmp_path, rows, EVERYTHING._replace(energy=0.6))
    arrays = open_arrays(tmp_path / "lists.bin")
    rank = int(sparse.ranks[4])  # both rows have term 4, so its only block has both
    block = int(arrays["of_term"][rank])
    begin, end = (int(arrays["summary_from"][at]) * 16 for at in (block, block + 1))
    packed = [x for x in arrays["summaries"][begin:end].tolist() if x]
    found = {int(sparse.terms[x >> 16]): (x & 0xFFFF) * STEP for x in packed}
    assert found == {0: 3.0, 1: 4.0}


def test_a_list_keeps_its_heaviest_postings(tmp_path: Path) -> None:
    rows = [{0: 1.0 + row / 10} for row in range(10)]
    size = EVERYTHING._replace(share=0.4, longest=1.0)
    sparse, lists = lists_of(tmp_path, rows, size)
    best, _ = lists.search(sparse.put(asked({0: 1.0})), Knobs(1, 0.0, 0.0), 10, open_to_all(10))
    assert best.tolist() == [9, 8, 7, 6]


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    rows=st.integers(1, 150),
    k=st.integers(1, 40),
    heap_factor=st.sampled_from([0.0, 1.0]),
)
def test_with_whole_lists_and_whole_summaries_it_is_exact(
    tmp_path_factory: pytest.TempPathFactory, seed: int, rows: int, k: int, heap_factor: float
) -> None:
    """A whole summary bounds the scores of its block, so passing over blocks below the bar loses nothing."""
    sparse, lists = lists_of(tmp_path_factory.mktemp("lists"), random_rows(seed, rows))
    rng = np.random.default_rng(seed)
    wanted = asked({int(t): float(rng.uniform(0.01, 3)) for t in rng.choice(WORDS, 20, False)})
    allowed = rng.random(rows) < 0.7
    exact = sparse.search(wanted, k, allowed)
    found = lists.search(sparse.put(wanted), Knobs(WORDS, heap_factor, 0.0), min(k, rows), bits(~allowed))
    assert [each.tolist() for each in found] == [each.tolist() for each in exact]


def test_what_it_finds_has_exact_scores_and_more_effort_finds_no_worse(tmp_path: Path) -> None:
    size = Size(share=0.3, longest=3.0, rows_per_block=10.0, energy=0.3)
    sparse, lists = lists_of(tmp_path, random_rows(3, 2000), size)
    wanted = asked({term: 0.2 + term / 30 for term in range(0, WORDS, 3)})
    sums = []
    for knobs in (Knobs(2, 1.0, 0.9), Knobs(8, 0.8, 0.5), Knobs(20, 0.0, 0.0)):
        rows, scores = lists.search(sparse.put(wanted), knobs, 10, open_to_all(2000))
        assert scores.tolist() == sparse.scores(wanted, rows).tolist()
        assert len(set(rows.tolist())) == 10
        sums.append(float(scores.sum()))
    assert sums == sorted(sums)


def test_a_floor_leaves_out_what_is_below_it(tmp_path: Path) -> None:
    sparse, lists = lists_of(tmp_path, [{0: 1.0}, {0: 2.0}, {0: 3.0}])
    put = sparse.put(asked({0: 1.0}), floor=1.5)
    rows, _ = lists.search(put, Knobs(1, 0.8, 0.0), 3, open_to_all(3))
    assert rows.tolist() == [2, 1]


def test_two_builds_are_the_same_bytes(tmp_path: Path) -> None:
    rows = random_rows(5, 300)
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        lists_of(tmp_path / name, rows)
    assert (tmp_path / "a" / "lists.bin").read_bytes() == (tmp_path / "b" / "lists.bin").read_bytes()
