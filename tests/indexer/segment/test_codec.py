import numpy as np
import pytest

from indexer.segment.codec import (
    SPREADS,
    Codebook,
    pairs_of,
    to_int8,
    to_residuals,
    train_codebook,
    values_of,
)


def unit(vectors):
    vectors = np.array(vectors, np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def alike(n, dim, seed=0, spread=0.5):
    """Directions around a few others, as token vectors are."""
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(7).standard_normal((8, dim))
    return unit(centres[rng.integers(0, 8, n)] + spread * rng.standard_normal((n, dim)))


def decoded(stored, book):
    codes = np.stack([stored.packed & 15, stored.packed >> 4], axis=2).reshape(len(stored.packed), -1)
    residuals = np.take_along_axis(values_of(book.levels)[stored.spreads], codes.astype(int), axis=1)
    return (book.centroids[stored.nearest].astype(np.float32) + residuals) * stored.scales[:, None]


def cosines(a, b):
    return (a * b).sum(1) / (np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1))


def test_codes_are_steps_of_a_hundred_and_twenty_seventh_of_the_largest():
    codes, scales = to_int8(np.array([[1.27, -0.01, 0.634], [0, 0, 0], [-5, 5, 0.1]], np.float32))
    assert codes.tolist() == [[127, -1, 63], [0, 0, 0], [-127, 127, 3]]
    assert scales == pytest.approx([0.01, 0, 5 / 127])
    assert (codes.dtype, scales.dtype) == (np.int8, np.float32)


def test_no_vectors_have_no_codes():
    codes, scales = to_int8(np.empty((0, 4), np.float32))
    assert (codes.shape, scales.shape) == ((0, 4), (0,))


@pytest.mark.parametrize("wrong", [np.nan, np.inf])
def test_what_cannot_be_compared_is_refused(wrong):
    vectors = np.array([[wrong, 1]], np.float32)
    for refuse in (to_int8, train_codebook):
        with pytest.raises(ValueError, match="NaN or infinity"):
            refuse(vectors)


# In steps of a tenth the centroids are (10, 0) and (0, 10); levels are eighths of the largest residual.
BOOK = Codebook(
    np.array([[10, 0], [0, 10]], np.int8),
    np.array([0.1, 0.1], np.float32),
    (np.arange(-8, 8) / 8).astype(np.float32),
)


def test_a_vector_is_its_nearest_centroid_and_a_level_a_dimension():
    # (0.8, 0.6) is 2 steps below and 6 above the first centroid. Above 6 the next spread is 2 ** (11 / 4) =
    # 6.73; its eighths are 0.84, so that -2 is the second below zero and 6 the seventh, rounded, above it.
    stored = to_residuals(np.array([[0.8, 0.6], [0.6, 0.8]], np.float32), BOOK)
    assert stored.nearest.tolist() == [0, 1]
    assert stored.spreads.tolist() == [11, 11]
    assert stored.packed.tolist() == [[6 | 15 << 4], [15 | 6 << 4]]
    assert decoded(stored, BOOK) == pytest.approx(np.array([[0.8, 0.6], [0.6, 0.8]]), abs=1e-6)


def test_the_length_is_kept_and_nothing_stays_nothing():
    vectors = np.array([[4, 3], [0, -0.1], [0, 0]], np.float32)
    stored = to_residuals(vectors, BOOK)
    assert np.linalg.norm(decoded(stored, BOOK), axis=1) == pytest.approx([5, 0.1, 0], rel=1e-6)


def test_pairs_are_the_lower_half_of_a_byte_first():
    pairs = pairs_of(BOOK.levels).view(np.int8).reshape(len(SPREADS), 256, 2)
    assert pairs[12, 6 | 14 << 4].tolist() == [-2, 6]  # the spread of 8 steps: a level is one
    assert pairs[24, 15].tolist() == [56, -64]


def test_what_a_codebook_has_not_seen_still_keeps_its_direction():
    book = train_codebook(alike(4000, 64), 64)
    others = alike(300, 64, seed=3, spread=1.0)
    found = cosines(others, decoded(to_residuals(others, book), book))
    assert found.mean() > 0.995
    assert found.min() > 0.95


def test_a_round_trip_keeps_directions():
    book = train_codebook(alike(4000, 64), 64)
    vectors = alike(300, 64, seed=1) * 0.7
    again = decoded(to_residuals(vectors, book), book)
    assert cosines(vectors, again).min() > 0.98
    assert np.linalg.norm(again, axis=1) == pytest.approx(np.full(300, 0.7), rel=1e-5)


def test_a_centroid_comes_back():
    book = train_codebook(alike(4000, 64), 64)
    centroids = book.centroids.astype(np.float32)
    assert cosines(centroids, decoded(to_residuals(centroids, book), book)).min() > 0.995


def test_what_becomes_of_a_vector_depends_on_itself_alone():
    book = train_codebook(alike(1000, 16), 32)
    vectors = alike(97, 16, seed=2)
    together = to_residuals(vectors, book)
    for begin in range(0, 97, 10):
        some = to_residuals(vectors[begin : begin + 10], book)
        for mine, its in zip(some, together, strict=True):
            assert np.array_equal(mine, its[begin : begin + 10])


def test_a_codebook_is_a_function_of_samples_and_seed():
    samples = alike(500, 8)
    assert train_codebook(samples, 16).same(train_codebook(samples.copy(), 16))
    assert not train_codebook(samples, 16).same(train_codebook(samples, 16, seed=1))
    assert not train_codebook(samples, 16).same(train_codebook(samples, 15))


def test_no_sum_of_centroid_and_residual_leaves_int8():
    book = train_codebook(unit(np.random.default_rng(0).standard_normal((3000, 4))), 200)
    assert np.abs(book.centroids.astype(int)).max() + np.abs(values_of(book.levels).astype(int)).max() <= 127
    assert (np.diff(book.levels) > 0).all()


def test_few_samples_give_few_centroids():
    assert len(train_codebook(alike(100, 8), 256).centroids) == 95 // 8
    assert len(train_codebook(alike(1, 8), 256).centroids) == 1
    assert len(train_codebook(np.vstack([alike(1, 8), np.zeros((40, 8), np.float32)])).centroids) == 1


def test_samples_of_no_use_are_refused():
    for samples in (np.empty((0, 8), np.float32), np.zeros((3, 8), np.float32), np.ones((3, 7), np.float32)):
        with pytest.raises(ValueError, match="even number of dimensions"):
            train_codebook(samples)
    with pytest.raises(ValueError, match="from 1 to 65536 centroids"):
        train_codebook(alike(9, 8), 0)
    with pytest.raises(ValueError, match=r"shape \(1, 8\) for centroids of 2 dimensions"):
        to_residuals(alike(1, 8), BOOK)
