import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.pooling import clusters, hierarchical, means, numbering, pool


def unit(vectors):
    vectors = np.array(vectors, np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def some(n, dim, seed):
    return unit(np.random.default_rng(seed).standard_normal((n, dim)))


FOUR = unit([[1, 0], [0.98, 0.2], [0, 1], [0.1, 0.99]])


def test_two_pairs_of_alike_vectors_become_two_means():
    labels = hierarchical(FOUR, 2, protected=0)
    assert labels.tolist() == [0, 0, 1, 1]
    vectors = means(FOUR, labels)
    assert vectors == pytest.approx(np.array([[0.9899, 0.1], [0.0502, 0.9975]]), abs=1e-4)
    assert np.linalg.norm(vectors, axis=1) == pytest.approx([0.9949, 0.9987], abs=1e-4)


def test_the_protected_rows_stay_by_themselves_and_do_not_count():
    # three rows are left: 3 // 2 = 1 cluster
    assert hierarchical(FOUR, 2).tolist() == [0, 1, 1, 1]
    assert hierarchical(FOUR, 2, protected=2).tolist() == [0, 1, 2, 2]
    assert hierarchical(FOUR, 2, protected=9).tolist() == [0, 1, 2, 3]


def test_factor_one_and_texts_too_short_change_nothing():
    assert hierarchical(FOUR, 1).tolist() == [0, 1, 2, 3]
    assert pool(FOUR, hierarchical(FOUR, 1)) == pytest.approx(FOUR)
    for n in range(3):
        assert hierarchical(FOUR[:n], 4).tolist() == list(range(n))


def test_equal_vectors_are_one_whatever_their_number():
    assert hierarchical(np.repeat(FOUR[:1], 5, axis=0), 2, protected=0).max() == 0


def test_distances_are_between_vectors_and_not_between_rows_of_distances():
    angles = np.deg2rad([0, 30, 90, 170])
    vectors = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    # were the rows of the square matrix taken for points, the last would stay alone
    assert hierarchical(vectors, 2, protected=0).tolist() == [0, 0, 1, 1]


def test_labels_are_numbered_by_first_appearance():
    assert numbering(np.array([7, -2, 7, 3, -2])).tolist() == [0, 1, 0, 2, 1]
    assert numbering(np.array([], np.int64)).tolist() == []
    assert means(np.array([[2], [7], [6]], np.float32), numbering(np.array([9, 1, 9]))).tolist() == [[4], [7]]


def test_what_was_pooled_is_as_long_as_what_was_not():
    axes = np.eye(3, dtype=np.float32)
    half = np.sqrt(0.5)
    assert pool(axes, np.array([4, 4, 2])) == pytest.approx(np.array([[half, half, 0], [0, 0, 1]]))
    assert pool(np.array([[1, 0], [-1, 0]], np.float32), np.zeros(2, np.int32)).tolist() == [[0, 0]]


def test_no_vectors_have_no_means():
    assert means(np.empty((0, 3), np.float32), np.empty(0, np.int32)).shape == (0, 3)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 40), st.integers(1, 5), st.integers(0, 2), st.integers(0, 2**32 - 1))
def test_a_pooled_text_is_no_more_alike_than_the_whole(n, factor, protected, seed):
    vectors, asked = some(n, 8, seed), some(1, 8, seed + 1)[0]
    labels = hierarchical(vectors, factor, protected)
    pooled = means(vectors, labels)
    rest = max(0, n - protected)
    assert len(pooled) <= n - rest + max(rest // factor, min(rest, 1))
    assert np.array_equal(numbering(labels), labels)
    for number, vector in enumerate(pooled):
        assert vector @ asked <= (vectors[labels == number] @ asked).max() + 1e-6
        assert np.linalg.norm(vector) <= 1 + 1e-6


def test_as_many_clusters_as_vectors_are_the_vectors():
    for k in (4, 5):
        assert clusters(FOUR, k).tolist() == [0, 1, 2, 3]
    assert clusters(FOUR[:0], 3).tolist() == []


@pytest.mark.parametrize("seed", range(5))
def test_clusters_find_the_pairs_whatever_they_begin_with(seed):
    assert clusters(FOUR, 2, seed).tolist() == [0, 0, 1, 1]
    assert clusters(FOUR, 1, seed).tolist() == [0, 0, 0, 0]


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 60), st.integers(1, 20), st.integers(0, 2**32 - 1))
def test_clusters_are_reproducible_and_at_most_k(n, k, seed):
    vectors = some(n, 6, seed)
    labels = clusters(vectors, k, seed)
    assert np.array_equal(labels, clusters(vectors.copy(), k, seed))
    assert np.array_equal(numbering(labels), labels)
    assert labels.max() + 1 <= k


def test_one_vector_moves_only_its_own_mean_by_its_share():
    vectors = some(20, 6, 0)
    labels = clusters(vectors, 5)
    moved = vectors.copy()
    moved[3] += 1
    difference = means(moved, labels) - means(vectors, labels)
    mine = labels[3]
    assert difference[mine] == pytest.approx(np.full(6, 1 / (labels == mine).sum()), abs=1e-6)
    assert not np.delete(difference, mine, axis=0).any()


def test_numbers_without_sense_are_refused():
    with pytest.raises(ValueError, match="factor >= 1"):
        hierarchical(FOUR, 0)
    with pytest.raises(ValueError, match="at least one vector"):
        clusters(FOUR, 0)
