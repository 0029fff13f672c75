import numpy as np

from indexer.kernels.maxsim import bests, gather, gather_packed, means, pack_residuals

STARTS = np.array([0, 2, 2, 3])
SCALES = np.array([1, 2, 3], np.float32)


def test_rows_are_copied_one_after_another():
    codes, scales = np.zeros((4, 2), np.int8), np.zeros(4, np.float32)
    stored = np.array([[1, 2], [3, 4], [5, 6]], np.int8)
    gather(stored.reshape(-1), SCALES, STARTS, np.array([2, 1, 0]), codes.reshape(-1), scales)
    assert codes.tolist() == [[5, 6], [1, 2], [3, 4], [0, 0]]
    assert scales.tolist() == [3, 1, 2, 0]


def test_residuals_are_added_to_their_own_centroid_by_their_own_book():
    packed, nearest = np.array([[0x10], [0x10], [0x01]], np.uint8), np.array([0, 1, 1], np.uint16)
    centroids, book_of = np.array([[100, -100], [0, 0]], np.int8), np.array([0, 1], np.uint16)
    pairs = np.zeros((2, 256), np.uint16)
    for book in range(2):  # half a byte b stands for b * 10 in the first book, for -b in the second
        values = np.arange(16) * (10 if book == 0 else -1)
        both = np.stack([values[np.arange(256) % 16], values[np.arange(256) // 16]], 1).astype(np.int8)
        pairs[book] = both.view(np.uint16)[:, 0]
    codes, scales = np.zeros((3, 2), np.int8), np.zeros(3, np.float32)
    rows = np.array([2, 0])
    stored = (packed, SCALES, STARTS, rows, nearest, centroids, book_of, pairs)
    gather_packed(*stored, codes, codes.view(np.uint16), scales)
    assert codes.tolist() == [[-1, 0], [100, -90], [0, -1]]
    assert scales.tolist() == [3, 1, 2]


def test_the_best_of_a_row_is_chosen_after_scaling():
    products = np.array([[10, -5, 9], [6, -6, 9], [-1, 0, 9]], np.int32)
    found = bests(products, SCALES, STARTS, 2)
    assert found.tolist() == [[12, -5], [-np.inf, -np.inf], [-3, 0]]
    assert means(found, np.array([0.5, 2], np.float32)).tolist() == [(6 - 10) / 2, -1, -0.75]


def test_a_bucket_is_the_number_of_borders_at_or_below():
    vectors = np.array([[3, 4], [0, 0]], np.float32)  # the direction (0.6, 0.8), 6 and 8 steps of 0.1
    cutoffs, weights = np.arange(1, 16, dtype=np.float32), np.arange(16).astype(np.int8)
    packed, scales = np.zeros((2, 1), np.uint8), np.ones(2, np.float32)
    zeros, centroids = np.zeros(2, np.uint16), np.zeros((1, 2), np.int8)
    step = np.float32(0.0999)  # a little less than a tenth, so that nothing lies on a border
    pack_residuals(vectors, zeros, centroids, step, cutoffs, weights, packed, scales)
    assert packed[:, 0].tolist() == [6 | 8 << 4, 0]
    assert scales.tolist() == [0.5, 0]
