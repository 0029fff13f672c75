"""Interpolation with early stopping on lists written by hand, against looking everything up."""

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from indexer.segment.dense import Dense, write_dense
from service.interpolate import Interpolated, bound_of_products, interpolate

SPARSE = [10.0, 9.0, 8.0, 6.0, 3.0, 1.0]
DENSE = [0.5, 0.9, 0.7, 0.95, 0.99, 0.2]


def interpolated(
    sparse: Sequence[float],
    dense: Sequence[float],
    weight: float,
    bound: float | None,
    k: int,
    first_block: int = 1,
    growth: int = 1,
) -> Interpolated:
    values = np.array(dense, np.float32)
    return interpolate(
        np.array(sparse, np.float64), values.__getitem__, weight, bound, k, first_block, growth
    )


def best(scores: Sequence[float], k: int) -> list[int]:
    """Candidates by score and, at equal scores, by their numbers."""
    return sorted(range(len(scores)), key=lambda row: (-scores[row], row))[:k]


def test_the_sparse_weight_is_the_share_of_the_sparse_score():
    found = interpolated(SPARSE, DENSE, 0.1, None, 2)
    assert found.scores.tolist() == pytest.approx([1.45, 1.71, 1.43, 1.455, 1.191, 0.28])
    assert found.dense.tolist() == pytest.approx(DENSE)
    assert interpolated(SPARSE, DENSE, 1.0, None, 2).scores.tolist() == SPARSE
    assert interpolated(SPARSE, DENSE, 0.0, None, 2).scores.tolist() == found.dense.tolist()


def test_it_stops_before_what_cannot_be_among_the_best():
    found = interpolated(SPARSE, DENSE, 0.1, 1.0, 2)
    assert len(found.scores) == 4
    assert best(found.scores.tolist(), 2) == [1, 3]


def test_the_largest_score_so_far_is_no_bound():
    """The approximate variant on the same lists: why it is not offered."""
    seen: list[float] = []
    for sparse, dense in zip(SPARSE, DENSE, strict=True):
        if len(seen) >= 2 and sorted(seen)[-2] >= 0.1 * sparse + 0.9 * max(DENSE[: len(seen)]):
            break
        seen.append(0.1 * sparse + 0.9 * dense)
    assert len(seen) == 3
    assert best(seen, 2) == [1, 0], "3 is missed"


def test_blocks_grow_and_the_bound_is_looked_at_between_them():
    blocks = []

    def look_up(block: slice) -> np.ndarray:
        blocks.append((block.start, block.stop))
        return np.array(DENSE, np.float32)[block]

    interpolate(np.array(SPARSE), look_up, 0.1, 1.0, 2, 1)
    assert blocks == [(0, 1), (1, 3), (3, 6)], "1.45 is still below 0.1 · 6 + 0.9 before the third"


def test_what_may_tie_is_looked_up():
    found = interpolated([1, 1, 1], [1, 0, 1], 0.5, 1.0, 1)
    assert found.scores.tolist() == [1, 0.5, 1], "a tie goes to whom the caller says"
    assert len(interpolated([1, 0.9], [1, 1], 0.5, 1.0, 1).scores) == 1


def test_too_few_candidates_are_all_looked_up():
    assert len(interpolated([3, 2, 1], [1, 1, 1], 0.5, 1.0, 9).scores) == 3
    assert len(interpolated([], [], 0.5, 1.0, 9).scores) == 0


FEW = st.sampled_from([-3.0, -1.0, -0.5, 0.0, 0.1, 0.3, 0.5, 0.7, 1.0, 1.0000001, 9.0])
ANY = st.floats(-100, 100, width=32)
UNIT = st.sampled_from([-1.0, -0.5, 0.0, 0.2, 0.3, 0.9, 0.99999994, 1.0]) | st.floats(-1, 1, width=32)


@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.tuples(FEW | ANY, UNIT), max_size=30),
    st.sampled_from([0.0, 0.1, 0.3, 0.5, 1.0]) | st.floats(0, 1),
    st.integers(1, 12),
    st.integers(1, 5),
    st.integers(1, 3),
    st.randoms(use_true_random=False),
)
@example([(0.3, 1.0)] * 6, 0.1, 2, 1, 1, None)
@example([(0.0, -1.0)] * 5 + [(0.0, 1.0)], 0.5, 1, 1, 1, None)
def test_the_best_are_those_of_everything_looked_up(candidates, weight, k, first_block, growth, random):
    """Ties are broken by numbers that have nothing to do with the order in which candidates come."""
    sparse = sorted((sparse for sparse, _ in candidates), reverse=True)
    dense, numbers = [dense for _, dense in candidates], np.arange(len(candidates))[::-1].copy()
    if random is not None:
        random.shuffle(numbers)
    everything = interpolated(sparse, dense, weight, None, k)
    found = interpolated(sparse, dense, weight, 1.0, k, first_block, growth)
    assert found.scores.tolist() == everything.scores[: len(found.scores)].tolist()
    assert ranking(found.scores, numbers, k) == ranking(everything.scores, numbers, k)


def ranking(scores: np.ndarray, numbers: np.ndarray, k: int) -> list[tuple[float, int]]:
    order = np.lexsort((numbers[: len(scores)], -scores))[:k]
    return [(float(scores[row]), int(numbers[row])) for row in order]


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 200), st.sampled_from(["bfloat16", "int8"]), st.booleans(), st.integers(0, 2**32 - 1))
def test_no_product_exceeds_its_bound(tmp_path_factory, dim, precision, equal, seed):
    """Most of all not that of a question which is the longest vector itself, where the bound is tight."""
    rng = np.random.default_rng(seed)
    vectors = np.ones((1, dim), np.float32) if equal else rng.standard_normal((5, dim), np.float32)
    path = tmp_path_factory.mktemp("d") / "d"
    write_dense(path, vectors, precision)
    dense = Dense(path)
    rows = np.arange(dense.rows)
    lengths = np.linalg.norm(dense.rows_as_float(rows).astype(np.float64), axis=1)
    assert dense.longest == pytest.approx(lengths.max())
    question = dense.rows_as_float(rows)[np.argmax(lengths)]
    question = (question / np.linalg.norm(question)).astype(np.float32)
    bound = bound_of_products(question, dense.longest)
    assert dense.scores(question, rows).max() <= bound
    assert bound == pytest.approx(float(dense.scores(question, rows).max()), rel=1e-4), "and it is no looser"
