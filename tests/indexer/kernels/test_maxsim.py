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
    pairs, spreads = np.zeros((2, 3, 256), np.uint16), np.array([0, 0, 2], np.uint8)
    for book, spread, factor in ((0, 0, 10), (1, 0, -1), (1, 2, -3)):  # what half a byte of 1 stands for
        values = np.arange(16) * factor
        both = np.stack([values[np.arange(256) % 16], values[np.arange(256) // 16]], 1).astype(np.int8)
        pairs[book, spread] = both.view(np.uint16)[:, 0]
    codes, scales = np.zeros((3, 2), np.int8), np.zeros(3, np.float32)
    rows = np.array([2, 0])
    stored = (packed, SCALES, STARTS, rows, nearest, spreads, centroids, book_of, pairs)
    gather_packed(*stored, codes, codes.view(np.uint16), scales)
    assert codes.tolist() == [[-3, 0], [100, -90], [0, -1]]
    assert scales.tolist() == [3, 1, 2]


def test_the_best_of_a_row_is_chosen_after_scaling():
    products = np.array([[10, -5, 9], [6, -6, 9], [-1, 0, 9]], np.int32)
    found = bests(products, SCALES, STARTS, 2)
    assert found.tolist() == [[12, -5], [-np.inf, -np.inf], [-3, 0]]
    assert means(found, np.array([0.5, 2], np.float32)).tolist() == [(6 - 10) / 2, -1, -0.75]


def test_a_code_is_the_closest_value_at_the_spread_of_the_largest_residual():
    # the direction (0.6, 0.8) is 6 and 8 steps of 0.1 from a centroid of zeros: the spread is 9 and not 4
    vectors, values = np.array([[3, 4], [0, 0]], np.float32), np.zeros((3, 16), np.int8)
    values[1] = np.arange(16)
    packed, scales, spreads = np.zeros((2, 1), np.uint8), np.ones(2, np.float32), np.ones(2, np.uint8)
    book = (np.zeros((1, 2), np.int8), np.array([0.1], np.float32), np.array([4.0, 9.0, 100.0]), values)
    pack_residuals(vectors, *book, np.zeros(2, np.uint16), spreads, packed, scales)
    assert packed[0, 0] == 6 | 8 << 4
    assert spreads.tolist() == [1, 0]
    assert scales.tolist() == [0.5, 0]
