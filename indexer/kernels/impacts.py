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

from indexer.kernels.forward import CODE, RANK, Forward, component, length_of
from indexer.kernels.scalars import Int
from indexer.kernels.top import keep_best, ranked, room_for

WINDOW = 1 << 16
"""Rows of a window: what 16 bits can number."""

STRIDE = 32
"""Sums that are looked at together."""


@njit(nogil=True, cache=True)
def count_postings(forward: Forward, starts: NDArray[np.int64]) -> None:
    """Fill `starts`, int64[windows, terms + 1]: where each list of postings begins and the last one ends."""
    starts[:] = 0
    for row in range(len(forward.tail_starts) - 1):
        for i in range(length_of(forward, row)):
            starts[row // WINDOW, np.int64(component(forward, row, i) >> RANK) + 1] += 1
    total = np.int64(0)
    for window in range(starts.shape[0]):
        for term in range(starts.shape[1]):
            total += starts[window, term]
            starts[window, term] = total


@njit(nogil=True, cache=True)
def fill_postings(forward: Forward, starts: NDArray[np.int64], postings: NDArray[np.uint32]) -> None:
    """Put every component of `forward` into its list, rows ascending."""
    cursors = starts[:, :-1].copy()
    for row in range(len(forward.tail_starts) - 1):
        window, place = row // WINDOW, np.uint32(row % WINDOW)
        for i in range(length_of(forward, row)):
            x = component(forward, row, i)
            term = np.int64(x >> RANK)
            postings[cursors[window, term]] = (place << RANK) | (x & CODE)
            cursors[window, term] += 1


@njit(nogil=True, cache=True)
def search(
    starts: NDArray[np.int64],
    postings: NDArray[np.uint32],
    ranks: NDArray[np.int64],
    weights: NDArray[np.uint32],
    rows: Int,
    k: Int,
    floor: Int,
    allowed: NDArray[np.bool_],
    sums: NDArray[np.uint32],
) -> NDArray[np.uint64]:
    """Keys (see `top`) of the k best rows that are allowed and score more than 0 and at least `floor`.

    The question's terms have these ranks, none of them absent, and weights. `allowed` is bool[rows], or empty
    for all rows. `sums`, uint32[WINDOW], is scratch, all zero before and after.
    """
    keys, size, bar = np.empty(room_for(k), np.uint64), np.int64(0), max(np.uint32(floor), np.uint32(1))
    for window in range(starts.shape[0]):
        for i in range(len(ranks)):
            _add(postings, starts[window, ranks[i]], starts[window, ranks[i] + 1], weights[i], sums)
        base = window * WINDOW
        bar, size = _take(sums, base, min(rows - base, WINDOW), allowed, keys, size, k, bar)
    return ranked(keys, size, k)


@njit(nogil=True, cache=True)
def _add(postings: NDArray[np.uint32], begin: Int, end: Int, weight: Int, sums: NDArray[np.uint32]) -> None:
    for p in range(np.uint64(begin), np.uint64(end)):
        x = postings[p]
        sums[x >> RANK] += np.uint32(weight * (x & CODE))


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
    for begin in range(0, count, STRIDE):
        part = sums[begin : begin + STRIDE]
        if _largest(part) >= bar:
            for i in range(min(STRIDE, count - begin)):
                row = base + begin + i
                if part[i] >= bar and (len(allowed) == 0 or allowed[row]):
                    bar, size = keep_best(keys, size, k, part[i], row, bar)
        part[:] = 0
    return np.uint32(bar), np.int64(size)


@njit(nogil=True, cache=True)
def _largest(part: NDArray[np.uint32]) -> np.uint32:
    most = np.uint32(0)
    for x in part:
        most = max(most, x)
    return most
