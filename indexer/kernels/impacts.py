"""Term-at-a-time search of sparse vectors: the k best rows, exactly.

Postings are term-major within windows of consecutive rows: a posting is one unsigned 32-bit number,
`row in window << 16 | code`, and a window's sums fit the second-level cache. The lists of the question's
terms are added up one after another, then the sums are read, and cleared, once.

Sums are unsigned 32-bit integers that cannot overflow (see `forward`), so neither the order of the terms nor
the cut into windows and segments changes a score.
"""

import numpy as np
from numba import njit
from numpy.typing import NDArray

from indexer.kernels.forward import CODE, RANK, Forward, buffer, read_row
from indexer.kernels.scalars import Int
from indexer.kernels.terms import Asked, heaviest
from indexer.kernels.top import GRAIN, decoded, keep_best, ranked, room_for

WINDOW = 1 << 16
"""Rows of a window: what 16 bits can number."""

STRIDE = np.uint64(16)
"""Sums that are looked at together."""

BUCKETS = 1024
BELOW_GRAIN = np.uint32((1 << GRAIN) - 1)

FEW = 32
"""For more hits than these the best of all strides give a first bar."""

ONE, TWO, THREE, FOUR = np.uint64(1), np.uint64(2), np.uint64(3), np.uint64(4)


@njit(nogil=True, cache=True)
def count_postings(forward: Forward, starts: NDArray[np.int64]) -> None:
    """Fill `starts`, int64[windows, terms + 1]: where each list of postings begins and the last one ends."""
    starts[:] = 0
    components = buffer(forward)
    for row in range(len(forward.tail_starts) - 1):
        for i in range(read_row(forward, row, components)):
            starts[row // WINDOW, np.int64(components[i] >> RANK) + 1] += 1
    total = np.int64(0)
    for window in range(starts.shape[0]):
        for term in range(starts.shape[1]):
            total += starts[window, term]
            starts[window, term] = total


@njit(nogil=True, cache=True)
def fill_postings(forward: Forward, starts: NDArray[np.int64], postings: NDArray[np.uint32]) -> None:
    """Put every component of `forward` into its list, rows ascending."""
    cursors, components = starts[:, :-1].copy(), buffer(forward)
    for row in range(len(forward.tail_starts) - 1):
        window, place = row // WINDOW, np.uint32(row % WINDOW)
        for i in range(read_row(forward, row, components)):
            x = components[i]
            term = np.int64(x >> RANK)
            postings[cursors[window, term]] = (place << RANK) | (x & CODE)
            cursors[window, term] += 1


@njit(nogil=True, cache=True)
def search(
    starts: NDArray[np.int64],
    postings: NDArray[np.uint32],
    asked: Asked,
    rows: Int,
    k: Int,
    allowed: NDArray[np.bool_],
    sums: NDArray[np.uint32],
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """The k best rows that are allowed and share a term with the question, and their scores, best first.

    `allowed` is bool[rows], or empty for all rows. `sums`, uint32[WINDOW], is scratch, all zero before and
    after.
    """
    keys, size, bar = np.empty(room_for(k), np.uint64), np.int64(0), max(np.uint32(asked.floor), np.uint32(1))
    ranks, weights = heaviest(asked, len(asked.terms))
    for window in range(starts.shape[0]):
        for i in range(len(ranks)):
            _add(postings, starts[window, ranks[i]], starts[window, ranks[i] + 1], weights[i], sums)
        base = window * WINDOW
        bar, size = _take(sums, base, min(rows - base, WINDOW), allowed, keys, size, k, bar)
    return decoded(ranked(keys, size, k), asked.factor)


@njit(nogil=True, cache=True)
def _add(postings: NDArray[np.uint32], begin: Int, end: Int, weight: Int, sums: NDArray[np.uint32]) -> None:
    """Add a list to the sums, four postings at a time, so that loads do not wait for stores."""
    p, stop = np.uint64(begin), np.uint64(end)
    while p + FOUR <= stop:
        a, b = postings[p], postings[p + ONE]
        c, d = postings[p + TWO], postings[p + THREE]
        sums[a >> RANK] += np.uint32(weight * (a & CODE))
        sums[b >> RANK] += np.uint32(weight * (b & CODE))
        sums[c >> RANK] += np.uint32(weight * (c & CODE))
        sums[d >> RANK] += np.uint32(weight * (d & CODE))
        p += FOUR
    while p < stop:
        a = postings[p]
        sums[a >> RANK] += np.uint32(weight * (a & CODE))
        p += ONE


@njit(nogil=True, cache=True)
def _take(
    sums: NDArray[np.uint32],
    base: Int,
    count: Int,
    allowed: NDArray[np.bool_],
    keys: NDArray[np.uint64],
    size: Int,
    k: Int,
    bar: Int,
) -> tuple[np.uint32, np.int64]:
    """Put the sums that are not below the bar among the keys, and clear all."""
    if len(allowed) > 0:
        for i in range(np.uint64(count)):
            sums[i] *= np.uint32(allowed[np.uint64(base) + i])
    most = _largest_by_stride(sums, count)
    if FEW < k <= len(most):
        bar = max(bar, _near_kth_largest(most, k))
    for stride in range(np.uint64(len(most))):
        if most[stride] >= bar:
            begin = stride * STRIDE
            for i in range(begin, min(begin + STRIDE, np.uint64(count))):
                if sums[i] >= bar:
                    bar, size = keep_best(keys, size, k, sums[i], np.uint64(base) + i, bar)
    sums[:count] = 0
    return np.uint32(bar), np.int64(size)


@njit(nogil=True, cache=True)
def _largest_by_stride(sums: NDArray[np.uint32], count: Int) -> NDArray[np.uint32]:
    largest = np.zeros(-(-count // np.int64(STRIDE)), np.uint32)
    for stride in range(np.uint64(len(largest))):
        most, begin = np.uint32(0), stride * STRIDE
        for i in range(begin, min(begin + STRIDE, np.uint64(count))):
            most = max(most, sums[i])
        largest[stride] = most
    return largest


@njit(nogil=True, cache=True)
def _near_kth_largest(largest: NDArray[np.uint32], k: Int) -> np.uint32:
    """A bound below the k-th best score, since these are scores of different rows, close to their k-th."""
    width = largest.max() // np.uint32(BUCKETS) + np.uint32(1)
    counts, above, bucket = np.zeros(BUCKETS, np.int64), 0, BUCKETS
    for score in largest:
        counts[score // width] += 1
    while above < k:
        bucket -= 1
        above += counts[bucket]
    return np.uint32(np.uint32(bucket) * width) & ~np.uint32(BELOW_GRAIN)
