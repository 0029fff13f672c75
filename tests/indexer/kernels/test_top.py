import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numba import njit

from indexer.kernels.top import cut, pack, ranking, room_for


@njit
def best(scores, rows, k):
    """The loop that every search runs."""
    keys, size, bar = np.empty(room_for(k), np.uint64), 0, np.float32(-np.inf)
    for i in range(len(scores)):
        if scores[i] >= bar:
            keys[size] = pack(scores[i], rows[i])
            size += 1
            if size == len(keys):
                bar, size = cut(keys, size, k), k
    return ranking(keys, size, k)


def top(scores, k, rows=None):
    numbers = np.arange(len(scores)) if rows is None else np.array(rows)
    found, kept = best(np.array(scores, np.float32), numbers, k)
    return found.tolist(), kept.tolist()


def test_best_first_and_ties_by_row():
    assert top([1, 3, 2, 3], 3) == ([1, 3, 2], [3, 3, 2])
    assert top([1, 1, 1], 2, rows=[7, 5, 6]) == ([5, 6], [1, 1])


def test_fewer_than_k_are_all_there_is():
    assert top([2], 5) == ([0], [2])
    assert top([], 5) == ([], [])


def test_zero_has_no_sign():
    assert top([0.0, -0.0, 0.0], 3)[0] == [0, 1, 2]


@pytest.mark.parametrize("score", [0.0, 1.5, -1.5, 3e38, -3e38, 1e-45, float("inf"), float("-inf")])
def test_scores_come_back_bit_for_bit(score):
    assert top([score], 1, rows=[2**32 - 2]) == ([2**32 - 2], [np.float32(score)])


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.sampled_from([-2.0, -1e-40, 0.0, 0.5, 0.5000001, 7.0]), max_size=400),
    st.integers(1, 70),
    st.randoms(use_true_random=False),
)
def test_it_equals_sorting(scores, k, random):
    order = list(range(len(scores)))
    random.shuffle(order)
    rows, kept = top([scores[i] for i in order], k, rows=order) if scores else ([], [])
    expected = sorted((-np.float32(score), row) for row, score in enumerate(scores))[:k]
    assert list(zip(kept, rows, strict=True)) == [(-score, row) for score, row in expected]


@pytest.mark.parametrize("shape", ["rising", "falling", "equal", "organ pipe"])
def test_orderly_streams_are_no_trouble(shape):
    n = 20_000
    scores = {
        "rising": np.arange(n),
        "falling": -np.arange(n),
        "equal": np.zeros(n),
        "organ pipe": -np.abs(np.arange(n) - n // 2),
    }[shape]
    assert top(scores, 10)[0] == np.lexsort((np.arange(n), -scores))[:10].tolist()
