import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.csr import concatenate, from_dense, prune, unit
from tests.models.sparse_folders import dense

DENSE = np.array([[0, 2, 0, 1], [0, 0, 0, 0], [3, 0, 3, 5]], np.float32)

rows = st.lists(st.lists(st.sampled_from([0.0, 0.5, 1.0, 2.0]), min_size=5, max_size=5), max_size=6)


def test_rows_are_terms_and_weights_in_order_of_terms() -> None:
    vectors = from_dense(DENSE)
    assert [(terms.tolist(), weights.tolist()) for terms, weights in vectors] == [
        ([1, 3], [2.0, 1.0]),
        ([], []),
        ([0, 2, 3], [3.0, 3.0, 5.0]),
    ]
    assert len(vectors) == 3
    assert (vectors.offsets.dtype, vectors.terms.dtype, vectors.weights.dtype) == (
        np.int64,
        np.int32,
        np.float32,
    )


def test_only_what_is_above_zero_is_an_entry() -> None:
    assert from_dense(np.array([[-1, 0, np.nan, 2]], np.float32)).terms.tolist() == [3]


def test_rows_are_taken_in_the_order_asked_for_and_as_often() -> None:
    assert np.array_equal(dense(from_dense(DENSE).take([2, 1, 2]), 4), DENSE[[2, 1, 2]])


def test_no_rows_are_no_rows() -> None:
    for vectors in (concatenate([]), from_dense(np.zeros((0, 4), np.float32)), from_dense(DENSE).take([])):
        assert (len(vectors), vectors.offsets.tolist(), list(vectors)) == (0, [0], [])
    assert len(prune(concatenate([]), 3, 0.1)) == len(unit(concatenate([]))) == 0


def test_the_heaviest_terms_stay_and_of_equal_ones_the_lower() -> None:
    kept = prune(from_dense(DENSE), 2, 0.0)
    assert [terms.tolist() for terms, _ in kept] == [[1, 3], [], [0, 3]]


def test_weights_below_a_threshold_go_and_a_row_may_lose_all() -> None:
    kept = prune(from_dense(DENSE), None, 3.0)
    assert [terms.tolist() for terms, _ in kept] == [[], [], [0, 2, 3]]


def test_keeping_no_term_empties_every_row_and_fewer_is_refused() -> None:
    assert len(prune(from_dense(DENSE), 0, 0.0).terms) == 0
    with pytest.raises(ValueError, match="at least no term, not -1"):
        prune(from_dense(DENSE), -1, 0.0)


def test_rows_of_unit_length_keep_their_direction_and_empty_ones_stay_empty() -> None:
    vectors = unit(from_dense(np.array([[3, 4], [0, 0], [0, 9]], np.float32)))
    np.testing.assert_allclose(dense(vectors, 2), [[0.6, 0.8], [0, 0], [0, 1]], atol=1e-7)


@given(rows, st.data())
def test_csr_keeps_what_a_dense_matrix_would(table: list[list[float]], data: st.DataObject) -> None:
    matrix = np.array(table, np.float32).reshape(-1, 5)
    vectors = from_dense(matrix)
    assert np.array_equal(dense(vectors, 5), matrix)
    cut = data.draw(st.integers(0, len(matrix)))
    joined = concatenate([from_dense(matrix[:cut]), from_dense(matrix[cut:])])
    for name in ("offsets", "terms", "weights"):
        assert np.array_equal(getattr(joined, name), getattr(vectors, name))
    order = data.draw(st.permutations(range(len(matrix))))
    assert np.array_equal(dense(vectors.take(order), 5), matrix[list(order)])


@given(rows, st.integers(0, 6), st.sampled_from([0.0, 0.5, 1.0]))
def test_pruning_leaves_the_largest_of_a_sorted_row(
    table: list[list[float]], most: int, least: float
) -> None:
    vectors = from_dense(np.array(table, np.float32).reshape(-1, 5))
    for before, after in zip(vectors, prune(vectors, most, least), strict=True):
        best = sorted(zip(-before[1], before[0], strict=True))[:most]
        assert sorted(term for weight, term in best if -weight >= least) == after[0].tolist()
