"""The k best of a stream of (score, row), without a heap.

Best means the higher score and, at equal scores, the smaller row, so that a
ranking does not depend on the order in which rows were seen. Score and row are
packed into one integer that orders them so. Candidates fill a buffer of at
least 2 k; when it is full the best k stay and the worst of these becomes the
bar for what follows. That is a constant cost per candidate for any k, where a
heap of 1,000 pays ten levels for each.
"""

import numpy as np
from numba import njit
from numpy.typing import NDArray

from indexer.kernels.scalars import Int, Real

SMALLEST_BUFFER = 64
SIGN = np.uint32(1 << 31)
GRAIN = np.uint32(8)


@njit(nogil=True, cache=True)
def room_for(k: Int) -> Int:
    """Length of the buffer of keys (uint64) that the k best are chosen in."""
    return max(2 * k, SMALLEST_BUFFER)


@njit(nogil=True, cache=True)
def pack(score: Real, row: Int) -> np.uint64:
    """A key that is larger for a higher score and, at equal scores, for a smaller row (below 2**32)."""
    bits = np.float32(score + np.float32(0)).view(np.uint32)  # adding zero makes -0 the same as 0
    ordered = np.uint32(~bits) if bits & SIGN else np.uint32(bits | SIGN)
    return (np.uint64(ordered) << np.uint64(32)) | (np.uint64(0xFFFFFFFF) - np.uint64(row))


@njit(nogil=True, cache=True)
def cut(keys: NDArray[np.uint64], size: Int, k: Int) -> np.float32:
    """Move the k largest of `size` > k keys to the front; the score of the worst of them."""
    return _score(divide(keys, size, k))


@njit(nogil=True, cache=True)
def keep_best(
    keys: NDArray[np.uint64], size: Int, k: Int, score: Int, row: Int, bar: Int
) -> tuple[np.uint32, np.int64]:
    """Add an unsigned 32-bit score that is not below the bar; the bar and the number of keys after it.

    The upper 24 bits count, of which float32 loses none: scores that differ stay different, and a tie within
    a segment is a tie between segments.
    """
    keys[size] = key_of((np.uint32(score) >> GRAIN) + 1, row)
    if size + 1 < len(keys):
        return np.uint32(bar), np.int64(size + 1)
    return bar_of(divide(keys, size + 1, k)), np.int64(k)


@njit(nogil=True, cache=True)
def into_heap(heap: NDArray[np.uint64], score: Int, row: Int, bar: Int) -> np.uint32:
    """Replace the smallest key of a heap (zero while it is not full) if this row's is larger; the next bar.

    For few candidates and a bar that is always up to date; `keep_best` costs less when there are many.
    """
    key = key_of((np.uint32(score) >> GRAIN) + 1, row)
    if key <= heap[0]:
        return np.uint32(bar)
    place, size = 0, len(heap)
    while 2 * place + 1 < size:
        child = 2 * place + 1
        if child + 1 < size and heap[child + 1] < heap[child]:
            child += 1
        if heap[child] >= key:
            break
        heap[place] = heap[child]
        place = child
    heap[place] = key
    return max(np.uint32(bar), bar_of(heap[0])) if heap[0] > 0 else np.uint32(bar)


@njit(nogil=True, cache=True)
def from_heap(heap: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The keys of a heap, best first, without the places that were never filled."""
    heap.sort()
    best = heap[::-1]
    return best[: np.count_nonzero(best)].copy()


@njit(nogil=True, cache=True)
def key_of(score: Int, row: Int) -> np.uint64:
    """As `pack`, for a score that is a positive integer."""
    return (np.uint64(score) << np.uint64(32)) | (np.uint64(0xFFFFFFFF) - np.uint64(row))


@njit(nogil=True, cache=True)
def decoded(keys: NDArray[np.uint64], factor: Real) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Rows and scores of keys with integer scores; `factor` is a 32-bit score's unit, a power of two."""
    rows, scores = np.empty(len(keys), np.int64), np.empty(len(keys), np.float32)
    unit = factor * (1 << GRAIN)
    for i in range(len(keys)):
        rows[i] = np.uint64(0xFFFFFFFF) - (keys[i] & np.uint64(0xFFFFFFFF))
        scores[i] = np.float64(keys[i] >> np.uint64(32)) * unit
    return rows, scores


@njit(nogil=True, cache=True)
def bar_of(key: Int) -> np.uint32:
    """The smallest 32-bit score that has this key's score or a higher one; at least 1."""
    bar = ((np.uint64(key) >> np.uint64(32)) - np.uint64(1)) << np.uint64(GRAIN)
    return max(np.uint32(bar), np.uint32(1))


@njit(nogil=True, cache=True)
def ranked(keys: NDArray[np.uint64], size: Int, k: Int) -> NDArray[np.uint64]:
    """The k best of `size` keys, best first; all of them when they are fewer."""
    if size > k:
        divide(keys, size, k)
        size = k
    best = keys[:size]
    best.sort()
    return best[::-1].copy()


@njit(nogil=True, cache=True)
def divide(keys: NDArray[np.uint64], size: Int, k: Int) -> Int:
    """Move the k largest of `size` > k keys to the front; the smallest of them."""
    low, high = 0, size - 1
    while low < high:
        pivot = _median(keys[low], keys[(low + high) // 2], keys[high])
        i, j = low, high
        while i <= j:
            while keys[i] > pivot:
                i += 1
            while keys[j] < pivot:
                j -= 1
            if i <= j:
                keys[i], keys[j] = keys[j], keys[i]
                i += 1
                j -= 1
        if k - 1 <= j:
            high = j
        elif k - 1 >= i:
            low = i
        else:
            break
    return keys[:k].min()


@njit(nogil=True, cache=True)
def ranking(keys: NDArray[np.uint64], size: Int, k: Int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Rows and scores of the k best of `size` keys, best first; all of them when they are fewer."""
    if size > k:
        cut(keys, size, k)
        size = k
    best = keys[:size]
    best.sort()
    rows, scores = np.empty(size, np.int64), np.empty(size, np.float32)
    for i in range(size):
        key = best[size - 1 - i]
        rows[i] = np.int64(np.uint64(0xFFFFFFFF) - (key & np.uint64(0xFFFFFFFF)))
        scores[i] = _score(key)
    return rows, scores


@njit(nogil=True, cache=True)
def _score(key: Int) -> np.float32:
    ordered = np.uint32(key >> np.uint64(32))
    return float_of_bits(ordered ^ SIGN if ordered & SIGN else ~ordered)


@njit(nogil=True, cache=True)
def float_of_bits(bits: Int) -> np.float32:
    """The float32 of these 32 bits. Integer arithmetic widened them, and a view needs one definition."""
    return np.uint32(bits).view(np.float32)


@njit(nogil=True, cache=True)
def _median(a: Int, b: Int, c: Int) -> np.uint64:
    return max(min(a, b), min(max(a, b), c))
