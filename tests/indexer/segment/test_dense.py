import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from indexer.segment.dense import Dense, merge_dense, to_bfloat16, write_dense


def widen(halves):
    return (halves.astype(np.uint32) << 16).view(np.float32)


def dense(path, vectors):
    write_dense(path, np.array(vectors, np.float32))
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


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
def test_what_cannot_be_ranked_is_refused(tmp_path, wrong):
    with pytest.raises(ValueError, match="NaN or infinity"):
        write_dense(tmp_path / "d", np.array([[wrong]], np.float32))


def test_rounding_is_to_nearest_and_ties_to_even():
    # bfloat16 keeps 7 bits after the point: around 1 its steps are 1/128
    halves = to_bfloat16(np.array([1, 1 + 1 / 256, 1 + 3 / 256, 1 + 1.1 / 256, -2.5], np.float32))
    assert widen(halves).tolist() == [1, 1, 1 + 2 / 128, 1 + 1 / 128, -2.5]


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 40), st.integers(1, 70), st.integers(1, 50), st.integers(0, 2**32 - 1))
def test_search_equals_sorting_every_score_and_blocks_change_no_bit(tmp_path_factory, rows, dim, k, seed):
    rng = np.random.default_rng(seed)
    vectors, query = rng.standard_normal((rows, dim), np.float32), rng.standard_normal(dim, np.float32)
    segment = dense(tmp_path_factory.mktemp("d") / "d", vectors)
    scores = segment.scores(query, np.arange(rows))
    assert scores == pytest.approx(widen(to_bfloat16(vectors)) @ query, rel=1e-4, abs=1e-4)
    order = np.lexsort((np.arange(rows), -scores))[:k]
    found, best = segment.search(query, k)
    assert (found.tolist(), best.tolist()) == (order.tolist(), scores[order].tolist())
    halves = [segment.search(query, rows, None, 0, rows // 2), segment.search(query, rows, None, rows // 2)]
    together = sorted((-s, r) for half in halves for r, s in zip(*map(np.ndarray.tolist, half), strict=True))
    assert [(-s, r) for s, r in together[:k]] == list(zip(best.tolist(), found.tolist(), strict=True))


def test_merging_keeps_every_bit(tmp_path):
    first, second = dense(tmp_path / "a", [[1.1], [2.2]]), dense(tmp_path / "b", [[3.3]])
    merge_dense(tmp_path / "m", [(first, np.array([False, True])), (second, np.array([True]))])
    dense(tmp_path / "s", [[2.2], [3.3]])
    assert (tmp_path / "m").read_bytes() == (tmp_path / "s").read_bytes()
