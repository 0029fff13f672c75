import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from indexer.segment.coalesce import coalesce

FOUR = np.array([[1, 0], [0.9, 0.1], [0, 1], [0.1, 0.9]], np.float32)
ONE_DOCUMENT = np.zeros(4, np.uint32)


def unit(*components):
    return pytest.approx((np.array(components) / np.linalg.norm(components)).tolist())


def test_neighbours_that_are_alike_share_their_mean():
    vectors, of_row = coalesce(FOUR, ONE_DOCUMENT, 0.1)
    assert of_row.tolist() == [0, 0, 1, 1], "distances 0.0061, 0.9474 and 0.0061"
    assert vectors[0].tolist() == unit(0.95, 0.05)
    assert vectors[1].tolist() == unit(0.05, 0.95)


def test_the_distance_is_to_the_mean_and_not_to_the_neighbour():
    """20 degrees lie between neighbours, and 30 between the third and the mean of the first two."""
    angles = np.radians([0, 20, 40])
    vectors = np.stack([np.cos(angles), np.sin(angles)], 1).astype(np.float32)
    between = 1 - np.cos(np.radians(25))
    assert coalesce(vectors, np.zeros(3, np.uint32), between)[1].tolist() == [0, 0, 1]


def test_at_distance_nought_everything_is_kept_as_it_is():
    twice = np.repeat(FOUR, 2, axis=0)
    vectors, of_row = coalesce(twice, np.zeros(8, np.uint32), 0.0)
    assert vectors.tolist() == twice.tolist()
    assert of_row.tolist() == list(range(8))


def test_beyond_every_distance_a_document_has_one_vector():
    documents = np.array([0, 0, 1, 1], np.uint32)
    vectors, of_row = coalesce(np.concatenate([FOUR[:2], -FOUR[:1], FOUR[2:3]]), documents, 2.1)
    assert of_row.tolist() == [0, 0, 1, 1]
    assert vectors[1].tolist() == unit(-1, 1)


def test_documents_share_nothing():
    same = np.ones((3, 2), np.float32)
    assert coalesce(same, np.array([0, 1, 1], np.uint32), 1.0)[1].tolist() == [0, 1, 1]


def test_zeros_are_far_from_everything_and_what_cancels_out_stays_zero():
    zeros = np.array([[1, 0], [0, 0], [0, 0], [1, 0]], np.float32)
    assert coalesce(zeros, ONE_DOCUMENT, 1.0)[1].tolist() == [0, 1, 2, 3]
    vectors, of_row = coalesce(zeros, ONE_DOCUMENT, 1.1)
    assert (vectors.tolist(), of_row.tolist()) == ([[1, 0]], [0, 0, 0, 0])
    opposite = np.array([[1, 0], [-1, 0]], np.float32)
    assert coalesce(opposite, np.zeros(2, np.uint32), 2.1)[0].tolist() == [[0, 0]]


def test_nothing_becomes_nothing():
    vectors, of_row = coalesce(np.empty((0, 3), np.float32), np.empty(0, np.uint32), 0.5)
    assert (vectors.shape, of_row.shape, of_row.dtype) == ((0, 3), (0,), np.uint32)


@given(st.integers(0, 30), st.floats(0, 2), st.integers(0, 2**32 - 1))
@settings(max_examples=60, deadline=None)
def test_groups_are_runs_within_documents_and_the_others_change_nothing(rows, delta, seed):
    rng = np.random.default_rng(seed)
    vectors = rng.standard_normal((rows, 3), np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    documents = np.sort(rng.integers(0, 5, rows)).astype(np.uint32)
    joined, of_row = coalesce(vectors, documents, delta)
    steps = np.diff(of_row.astype(int), prepend=-1 if rows else 0)
    assert set(steps.tolist()) <= {0, 1}
    assert (steps[1:][np.diff(documents) > 0] == 1).all()
    assert np.linalg.norm(joined, axis=1) == pytest.approx(1, abs=1e-5)
    apart = [coalesce(vectors[documents == d], documents[documents == d], delta)[0] for d in set(documents)]
    assert sorted(joined.tolist()) == sorted(row for each in apart for row in each.tolist())
