import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from indexer.segment.arrays import open_arrays
from indexer.segment.dense import Dense, merge_dense, to_bfloat16, to_int8, write_dense

PRECISIONS = ["bfloat16", "int8"]


def widen(halves):
    return (halves.astype(np.uint32) << 16).view(np.float32)


def dense(path, vectors, precision="bfloat16", of_row=None):
    of_row = None if of_row is None else np.array(of_row, np.uint32)
    write_dense(path, np.array(vectors, np.float32), precision, of_row)
    return Dense(path)


def test_the_largest_dot_products_come_first(tmp_path):
    segment = dense(tmp_path / "d", [[1, 0], [0, 1], [0.5, 0.5], [-1, 0]])
    rows, scores = segment.search(np.array([1, 0], np.float32), 3)
    assert (rows.tolist(), scores.tolist()) == ([0, 2, 1], [1, 0.5, 0])


def test_equal_scores_go_by_row_and_negative_ones_count(tmp_path):
    segment = dense(tmp_path / "d", [[-1], [-2], [-1], [0]])
    assert segment.search(np.array([1], np.float32), 4)[0].tolist() == [3, 0, 2, 1]
    assert segment.search(np.array([-0.0], np.float32), 4)[0].tolist() == [0, 1, 2, 3]


def test_only_allowed_rows_of_the_block_are_scored(tmp_path):
    segment = dense(tmp_path / "d", [[5], [4], [3], [2], [1]])
    query, allowed = np.array([1], np.float32), np.array([True, False, True, True, True])
    assert segment.search(query, 9, allowed)[0].tolist() == [0, 2, 3, 4]
    assert segment.search(query, 9, allowed, begin=1, end=4)[0].tolist() == [2, 3]
    assert segment.search(query, 1, None, begin=3, end=99)[0].tolist() == [3]
    assert segment.search(query, 5, np.zeros(5, np.bool_))[0].tolist() == []


def test_vectors_of_rows_are_read_as_they_are_scored(tmp_path):
    segment = dense(tmp_path / "d", [[1, 0], [0.1, -2], [3, 4]])
    assert segment.rows_as_float(np.array([2, 0, 2])).tolist() == [[3, 4], [1, 0], [3, 4]]
    assert segment.rows_as_float(np.array([1]))[0].tolist() == pytest.approx([0.1, -2], rel=2**-8)
    assert segment.rows_as_float(np.array([], np.int64)).shape == (0, 2)


def test_a_query_of_another_size_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"shape \(3,\) for passages of 2 dimensions"):
        dense(tmp_path / "d", [[1, 0]]).search(np.ones(3, np.float32), 1)


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
def test_what_cannot_be_ranked_is_refused(tmp_path, wrong, precision):
    with pytest.raises(ValueError, match="NaN or infinity"):
        write_dense(tmp_path / "d", np.array([[wrong]], np.float32), precision)


def test_rounding_is_to_nearest_and_ties_to_even():
    # bfloat16 keeps 7 bits after the point: around 1 its steps are 1/128
    halves = to_bfloat16(np.array([1, 1 + 1 / 256, 1 + 3 / 256, 1 + 1.1 / 256, -2.5], np.float32))
    assert widen(halves).tolist() == [1, 1, 1 + 2 / 128, 1 + 1 / 128, -2.5]


def test_eight_bits_are_multiples_of_a_scale_of_each_vector(tmp_path):
    codes, scales = to_int8(np.array([[127, -63.6, 0.4], [0, 0, 0], [0.5, -0.5, 0.25]], np.float32))
    assert codes.tolist() == [[127, -64, 0], [0, 0, 0], [127, -127, 64]]
    assert scales.tolist() == [1, 0, np.float32(0.5 / 127)]
    segment = dense(tmp_path / "d", [[127, -63.6, 0.4], [0, 0, 0], [0, 0, -254]], "int8")
    assert segment.scores(np.array([1, 0.5, 0.25], np.float32), np.arange(3)).tolist() == [95, 0, -63.5]
    assert segment.rows_as_float(np.array([2, 0])).tolist() == [[0, 0, -254], [127, -64, 0]]


@given(st.lists(st.floats(-(2.0**100), 2.0**100, width=32), min_size=1, max_size=20))
def test_eight_bits_err_by_half_a_step_at_most(components):
    vector = np.array([components], np.float32)
    (codes,), (scale,) = to_int8(vector)
    assert abs(codes).max() <= 127
    wrong = np.abs(codes * np.float64(scale) - vector[0].astype(np.float64))
    assert (wrong <= 0.501 * np.float64(scale) + 1e-40).all()


def test_the_longest_vector_as_it_is_stored(tmp_path):
    assert dense(tmp_path / "a", [[3, -4], [1, 1]]).longest == 5
    assert dense(tmp_path / "b", [[1, 1], [127, 0], [0, 0]], "int8").longest == 127
    assert dense(tmp_path / "c", np.empty((0, 3))).longest == 0


def test_neighbours_may_share_a_vector(tmp_path):
    segment = dense(tmp_path / "d", [[1, 0], [0, 1], [-1, 0]], of_row=[0, 0, 1, 2, 2])
    assert (segment.rows, segment.vectors, segment.dim) == (5, 3, 2)
    query = np.array([1, 0.5], np.float32)
    assert segment.scores(query, np.array([4, 1, 2])).tolist() == [-1, 1, 0.5]
    assert segment.rows_as_float(np.array([3, 1])).tolist() == [[-1, 0], [1, 0]]
    rows, scores = segment.search(query, 4)
    assert (rows.tolist(), scores.tolist()) == ([0, 1, 2, 3], [1, 1, 0.5, -1])
    assert segment.search(query, 9, np.array([False, True, False, True, True]))[0].tolist() == [1, 3, 4]


def test_a_file_without_these_choices_is_as_it_always_was(tmp_path):
    dense(tmp_path / "d", [[1, 0]])
    assert list(open_arrays(tmp_path / "d")) == ["vectors"]


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 40),
    st.integers(1, 70) | st.just(384),
    st.integers(1, 50),
    st.sampled_from(PRECISIONS),
    st.sampled_from([0.0, 0.3, 1.0]),
    st.sampled_from([None, 0.0, 0.2, 0.5, 0.9, 1.0]),
    st.integers(0, 2**32 - 1),
)
def test_search_equals_sorting_every_score_and_blocks_change_no_bit(
    tmp_path_factory, rows, dim, k, precision, joined, share, seed
):
    """Of rows that mostly have a vector of their own or share one, of which a filter leaves a share."""
    rng = np.random.default_rng(seed)
    of_row = np.cumsum(rng.random(rows) >= joined) if joined else np.arange(1, rows + 1)
    of_row -= of_row[0]
    vectors, query = rng.standard_normal((of_row[-1] + 1, dim), np.float32), rng.standard_normal(dim)
    query = query.astype(np.float32)
    path = tmp_path_factory.mktemp("d") / "d"
    segment = dense(path, vectors, precision, of_row if joined else None)
    mask = None if share is None else rng.random(rows) < share
    allowed = np.arange(rows) if mask is None else np.flatnonzero(mask)
    scores = segment.scores(query, allowed)
    assert scores == pytest.approx(segment.rows_as_float(allowed) @ query, rel=1e-4, abs=1e-4)
    order = np.lexsort((allowed, -scores))[:k]
    found, best = segment.search(query, k, mask)
    assert (found.tolist(), best.tolist()) == (allowed[order].tolist(), scores[order].tolist())
    halves = [segment.search(query, rows, mask, 0, rows // 2), segment.search(query, rows, mask, rows // 2)]
    together = sorted((-s, r) for half in halves for r, s in zip(*map(np.ndarray.tolist, half), strict=True))
    assert [(-s, r) for s, r in together[:k]] == list(zip(best.tolist(), found.tolist(), strict=True))


@pytest.mark.parametrize("precision", PRECISIONS)
def test_merging_keeps_every_bit(tmp_path, precision):
    first = dense(tmp_path / "a", [[1.1, 0.3], [2.2, 0.1]], precision)
    second = dense(tmp_path / "b", [[3.3, 9]], precision)
    merge_dense(tmp_path / "m", [(first, np.array([False, True])), (second, np.array([True]))])
    dense(tmp_path / "s", [[2.2, 0.1], [3.3, 9]], precision)
    assert (tmp_path / "m").read_bytes() == (tmp_path / "s").read_bytes()


@pytest.mark.parametrize("precision", PRECISIONS)
def test_rows_that_are_left_keep_their_group_and_unused_vectors_go(tmp_path, precision):
    first = dense(tmp_path / "a", [[1], [2], [3]], precision, of_row=[0, 0, 1, 2, 2])
    second = dense(tmp_path / "b", [[4], [5]], precision)
    keep = np.array([True, True, False, False, True])
    merge_dense(tmp_path / "m", [(first, keep), (second, np.array([True, True]))])
    merged = Dense(tmp_path / "m")
    assert merged.vector_of_row.tolist() == [0, 0, 1, 2, 3]
    assert merged.vectors == 4
    assert merged.scores(np.ones(1, np.float32), np.arange(5)).tolist() == pytest.approx([1, 1, 3, 4, 5])


def test_vectors_of_different_precisions_are_not_merged(tmp_path):
    parts = [(dense(tmp_path / each, [[1]], each), np.array([True])) for each in PRECISIONS]
    with pytest.raises(ValueError, match="m: vectors of different precisions cannot be merged"):
        merge_dense(tmp_path / "m", parts)
