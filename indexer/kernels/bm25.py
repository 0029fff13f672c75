"""BM25 over one segment's postings: accumulate term by term, then the best.

    score(d) = sum over terms t of  weight(t) * x / (x + norm(d)),
    x = tf_body + title_boost * tf_title

the Lucene form of Robertson & Zaragoza, "The Probabilistic Relevance
Framework: BM25 and Beyond" (2009), eq. 3.15; `weight` is idf times the term's
frequency in the question and `norm` is k1 * (1 - b + b * length / average).

Rows are taken in windows whose accumulators stay in the first-level cache. Each
contribution is rounded to a multiple of one quantum for the whole question,
2**-23 of a power of two above the sum of all weights, so that float32 sums are
exact. Hence a score does not depend on the order of the terms, on the window or
on the segment, and every contribution counts for at least one quantum.
"""

import numpy as np
from numba import njit
from numpy.typing import NDArray

from indexer.kernels.scalars import Int, Real
from indexer.kernels.top import cut, pack, ranking, room_for

WINDOW = 16384


@njit(nogil=True, cache=True, error_model="numpy")
def search(
    starts: NDArray[np.int64],
    rows: NDArray[np.uint32],
    tf: NDArray[np.uint16],
    title_tf: NDArray[np.uint8],
    norms: NDArray[np.float32],
    terms: NDArray[np.int64],
    weights: NDArray[np.float32],
    title_boost: Real,
    ceiling: Real,
    k: Int,
    allowed: NDArray[np.bool_],
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """The k best rows and their scores, best first, equal scores by row.

    The postings of term t are `starts[t]:starts[t + 1]`, rows ascending; terms of -1 are absent.
    `ceiling` is a power of two above the sum of the question's weights. `allowed` is bool[rows],
    or empty for all rows. Only rows that hold a term are found, so there can be fewer than k.
    """
    here, ends, weight = _open_lists(starts, terms, weights)
    sums = np.zeros(WINDOW, np.float32)
    touched = np.empty(WINDOW + 1, np.int32)  # a place is written before it is known to be new: one more
    keys, size, bar = np.empty(room_for(k), np.uint64), 0, np.float32(0)
    while len(here) > 0:
        base = np.int64(rows[here].min())
        count = 0
        for i in range(len(here)):
            stop = _first_from(rows, here[i], ends[i], base + WINDOW)
            for p in range(here[i], stop):
                place = np.int64(rows[p]) - base
                x = _frequency(tf[p], title_tf[p], title_boost)
                if x > 0:
                    touched[count] = place
                    count += sums[place] == 0
                    sums[place] += _contribution(weight[i], x, norms[rows[p]], ceiling)
            here[i] = stop
        for i in range(count):
            place = touched[i]
            score, sums[place] = sums[place], 0
            if score >= bar and (len(allowed) == 0 or allowed[base + place]):
                keys[size] = pack(score, base + place)
                size += 1
                if size == len(keys):
                    bar, size = cut(keys, size, k), k
        unfinished = here < ends
        here, ends, weight = here[unfinished], ends[unfinished], weight[unfinished]
    return ranking(keys, size, k)


@njit(nogil=True, cache=True, error_model="numpy")
def contributions(
    starts: NDArray[np.int64],
    rows: NDArray[np.uint32],
    tf: NDArray[np.uint16],
    title_tf: NDArray[np.uint8],
    norm: Real,
    terms: NDArray[np.int64],
    weights: NDArray[np.float32],
    title_boost: Real,
    ceiling: Real,
    row: Int,
) -> NDArray[np.float32]:
    """What each term adds to the score of one row; the same numbers that `search` adds up."""
    parts = np.zeros(len(terms), np.float32)
    for i in range(len(terms)):
        if terms[i] >= 0:
            end = starts[terms[i] + 1]
            p = _first_from(rows, starts[terms[i]], end, row)
            if p < end and rows[p] == row:
                x = _frequency(tf[p], title_tf[p], title_boost)
                if x > 0:
                    parts[i] = _contribution(weights[i], x, norm, ceiling)
    return parts


@njit(nogil=True, cache=True)
def _frequency(tf: Int, title_tf: Int, title_boost: Real) -> np.float32:
    """A term's frequency in a passage; 0 for a term in the title alone whose boost is zero."""
    return np.float32(tf) + np.float32(title_boost) * np.float32(title_tf)


@njit(nogil=True, cache=True, error_model="numpy")
def _contribution(weight: Real, x: Real, norm: Real, ceiling: Real) -> np.float32:
    """What a frequency above zero adds to a score: a multiple of the quantum, and at least one.

    Adding and taking off a power of two above the value leaves the bits that float32 has beside it.
    """
    top = np.float32(ceiling)
    exact = np.float32(weight) * (np.float32(x) / (np.float32(x) + np.float32(norm)))
    return max((exact + top) - top, top * np.float32(2.0**-23))


@njit(nogil=True, cache=True)
def live_frequencies(
    starts: NDArray[np.int64], rows: NDArray[np.uint32], terms: NDArray[np.int64], dead: NDArray[np.bool_]
) -> NDArray[np.int64]:
    """Number of rows that hold each term (-1 is absent: 0) and are not dead; `dead` empty: none is."""
    counts = np.zeros(len(terms), np.int64)
    for i in range(len(terms)):
        if terms[i] >= 0:
            begin, end = starts[terms[i]], starts[terms[i] + 1]
            counts[i] = end - begin
            for p in range(begin, end if len(dead) > 0 else begin):
                counts[i] -= dead[rows[p]]
    return counts


@njit(nogil=True, cache=True)
def _open_lists(
    starts: NDArray[np.int64], terms: NDArray[np.int64], weights: NDArray[np.float32]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]:
    """Where each list that has postings begins and ends, and its weight."""
    present = np.array(
        [i for i in range(len(terms)) if terms[i] >= 0 and starts[terms[i]] < starts[terms[i] + 1]]
    )
    return starts[terms[present]], starts[terms[present] + 1], weights[present]


@njit(nogil=True, cache=True)
def _first_from(rows: NDArray[np.uint32], begin: Int, end: Int, bound: Int) -> Int:
    """First posting of [begin, end) whose row is not below `bound`."""
    while begin < end:
        middle = (begin + end) // 2
        if rows[middle] < bound:
            begin = middle + 1
        else:
            end = middle
    return begin
