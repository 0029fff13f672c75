"""BM25 over one segment's postings: the k best rows, exactly.

    score(d) = sum over terms t of  weight(t) * x / (x + norm(d)),
    x = tf_body + title_boost * tf_title

the Lucene form of Robertson & Zaragoza, "The Probabilistic Relevance
Framework: BM25 and Beyond" (2009), eq. 3.15; `weight` is idf times the term's
frequency in the question and `norm` is k1 * (1 - b + b * length / average).

Each contribution is rounded to a multiple of one quantum for the whole question,
2**-23 of a power of two above the sum of all weights, so that float32 sums are
exact: a score depends neither on the order of the terms nor on the segment.

That leaves the order free. Rows are taken in windows whose sums stay in the
first-level cache; lists go in order of weight, and those that together cannot
lift a row to the k best only complete the rows that others have found (Turtle &
Flood's MaxScore, 1995, with the weight itself as a term's bound).
"""

from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from indexer.kernels.scalars import Int, Real
from indexer.kernels.top import cut, pack, ranking, room_for

WINDOW = 16384
PROBE = 16
"""A binary search costs about as much as looking at so many postings in a row."""


class Scorer(NamedTuple):
    """What turns a posting into a score: all postings, norms per row, and the question's parameters."""

    rows: NDArray[np.uint32]
    tf: NDArray[np.uint16]
    title_tf: NDArray[np.uint8]
    norms: NDArray[np.float32]
    title_boost: float
    ceiling: float


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
    scorer = Scorer(rows, tf, title_tf, norms, title_boost, ceiling)
    here, ends, weight, rest = _open_lists(starts, terms, weights, ceiling)
    sums = np.zeros(WINDOW, np.float32)
    touched = np.empty(WINDOW + 1, np.int32)  # a place is written before it is known to be new: one more
    keys, size, bar = np.empty(room_for(k), np.uint64), 0, np.float32(0)
    leading = len(here)
    while True:
        while leading > 0 and rest[leading - 1] < bar:
            leading -= 1
        base = _next_row(rows, here[:leading], ends[:leading])
        if base < 0:
            return ranking(keys, size, k)
        count = 0
        for i in range(leading):
            stop = _first_from(rows, here[i], ends[i], base + WINDOW)
            count = _find(scorer, here[i], stop, weight[i], base, sums, touched, count)
            here[i] = stop
        count = _survivors(sums, touched, count, bar - rest[leading], base, allowed)
        for i in range(leading, len(here)):
            here[i] = _first_from(rows, here[i], ends[i], base)
            stop = _first_from(rows, here[i], ends[i], base + WINDOW)
            _complete(scorer, here[i], stop, weight[i], base, sums, touched[:count])
            count = _survivors(sums, touched, count, bar - rest[i + 1], base, allowed)
        for place in touched[:count]:
            score, sums[place] = sums[place], 0
            if score >= bar:
                keys[size] = pack(score, base + place)
                size += 1
                if size == len(keys):
                    bar, size = cut(keys, size, k), k


@njit(nogil=True, cache=True)
def _find(
    scorer: Scorer,
    begin: Int,
    stop: Int,
    weight: Real,
    base: Int,
    sums: NDArray[np.float32],
    touched: NDArray[np.int32],
    count: Int,
) -> Int:
    """Add postings to the sums of their rows; places not met before go behind the first `count` touched."""
    for p in range(begin, stop):
        place = np.int64(scorer.rows[p]) - base
        part = _part(scorer, p, weight)
        if part > 0:
            touched[count] = place
            count += sums[place] == 0
            sums[place] += part
    return count


@njit(nogil=True, cache=True)
def _complete(
    scorer: Scorer,
    begin: Int,
    stop: Int,
    weight: Real,
    base: Int,
    sums: NDArray[np.float32],
    places: NDArray[np.int32],
) -> None:
    """Add postings to the sums of these places alone."""
    if len(places) * PROBE < stop - begin:
        for place in places:
            p = _first_from(scorer.rows, begin, stop, base + place)
            if p < stop and scorer.rows[p] == base + place:
                sums[place] += _part(scorer, p, weight)
    elif len(places) > 0:
        for p in range(begin, stop):
            place = np.int64(scorer.rows[p]) - base
            if sums[place] > 0:
                sums[place] += _part(scorer, p, weight)


@njit(nogil=True, cache=True)
def _survivors(
    sums: NDArray[np.float32],
    touched: NDArray[np.int32],
    count: Int,
    least: Real,
    base: Int,
    allowed: NDArray[np.bool_],
) -> Int:
    """Keep the touched places that are allowed and have at least `least`; forget the others."""
    kept = 0
    for i in range(count):
        place = touched[i]
        if sums[place] >= least and (len(allowed) == 0 or allowed[base + place]):
            touched[kept] = place
            kept += 1
        else:
            sums[place] = 0
    return kept


@njit(nogil=True, cache=True, error_model="numpy")
def contributions(
    starts: NDArray[np.int64],
    rows: NDArray[np.uint32],
    tf: NDArray[np.uint16],
    title_tf: NDArray[np.uint8],
    norms: NDArray[np.float32],
    terms: NDArray[np.int64],
    weights: NDArray[np.float32],
    title_boost: Real,
    ceiling: Real,
    row: Int,
) -> NDArray[np.float32]:
    """What each term adds to the score of one row; the same numbers that `search` adds up."""
    scorer = Scorer(rows, tf, title_tf, norms, title_boost, ceiling)
    parts = np.zeros(len(terms), np.float32)
    for i in range(len(terms)):
        if terms[i] >= 0:
            end = starts[terms[i] + 1]
            p = _first_from(rows, starts[terms[i]], end, row)
            if p < end and rows[p] == row:
                parts[i] = _part(scorer, p, weights[i])
    return parts


@njit(nogil=True, cache=True, error_model="numpy")
def scores_of(
    starts: NDArray[np.int64],
    rows: NDArray[np.uint32],
    tf: NDArray[np.uint16],
    title_tf: NDArray[np.uint8],
    norms: NDArray[np.float32],
    terms: NDArray[np.int64],
    weights: NDArray[np.float32],
    title_boost: Real,
    ceiling: Real,
    wanted: NDArray[np.int64],
) -> NDArray[np.float32]:
    """Scores of the wanted rows, those that `search` gives, 0 for a row that holds no term.

    Rows may come in any order and more than once; ascending ones are found soonest.
    """
    scorer = Scorer(rows, tf, title_tf, norms, title_boost, ceiling)
    sums = np.zeros(len(wanted), np.float32)
    for i in range(len(terms)):
        if terms[i] >= 0:
            begin, end = starts[terms[i]], starts[terms[i] + 1]
            p = begin
            for j in range(len(wanted)):
                if j > 0 and wanted[j] < wanted[j - 1]:
                    p = begin
                p = _gallop(rows, p, end, wanted[j])
                if p < end and rows[p] == wanted[j]:
                    sums[j] += _part(scorer, p, weights[i])
    return sums


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


@njit(nogil=True, cache=True, error_model="numpy")
def _part(scorer: Scorer, p: Int, weight: Real) -> np.float32:
    """What posting p adds to its row's score; nothing for a term in the title alone whose boost is zero."""
    x = np.float32(scorer.tf[p]) + np.float32(scorer.title_boost) * np.float32(scorer.title_tf[p])
    if x == 0:
        return np.float32(0)
    return _rounded(np.float32(weight) * (x / (x + scorer.norms[scorer.rows[p]])), scorer.ceiling)


@njit(nogil=True, cache=True)
def _rounded(value: Real, ceiling: Real) -> np.float32:
    """A multiple of the quantum near the value, and at least one.

    Adding and taking off a power of two above the value leaves the bits that float32 has beside it.
    """
    top = np.float32(ceiling)
    return max((np.float32(value) + top) - top, top * np.float32(2.0**-23))


@njit(nogil=True, cache=True)
def _open_lists(
    starts: NDArray[np.int64], terms: NDArray[np.int64], weights: NDArray[np.float32], ceiling: Real
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32], NDArray[np.float32]]:
    """Where each present list begins and ends, and its weight, the heaviest first.

    The last array is what the lists from each on can add to a row at most, one longer than the others.
    """
    order = _heaviest_first(terms, weights)
    count = len(order)
    here, ends = np.empty(count, np.int64), np.empty(count, np.int64)
    weight, rest = np.empty(count, np.float32), np.zeros(count + 1, np.float32)
    for i in range(count - 1, -1, -1):
        term, weight[i] = terms[order[i]], weights[order[i]]
        here[i], ends[i] = starts[term], starts[term + 1]
        rest[i] = rest[i + 1] + _rounded(weight[i], ceiling)
    return here, ends, weight, rest


@njit(nogil=True, cache=True)
def _heaviest_first(terms: NDArray[np.int64], weights: NDArray[np.float32]) -> NDArray[np.int64]:
    """Places of the present terms by falling weight; inserted one by one, since questions are short."""
    order, count = np.empty(len(terms), np.int64), 0
    for i in range(len(terms)):
        if terms[i] >= 0:
            place = count
            while place > 0 and weights[order[place - 1]] < weights[i]:
                order[place] = order[place - 1]
                place -= 1
            order[place] = i
            count += 1
    return order[:count]


@njit(nogil=True, cache=True)
def _next_row(rows: NDArray[np.uint32], here: NDArray[np.int64], ends: NDArray[np.int64]) -> Int:
    """The first row that any of the lists goes on with, -1 at the end of all."""
    first = np.int64(-1)
    for i in range(len(here)):
        if here[i] < ends[i] and (first < 0 or rows[here[i]] < first):
            first = np.int64(rows[here[i]])
    return first


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


@njit(nogil=True, cache=True)
def _gallop(rows: NDArray[np.uint32], begin: Int, end: Int, bound: Int) -> Int:
    """The same in steps that double, for a bound that is likely near (Bentley and Yao, 1976)."""
    step = 1
    while begin + step < end and rows[begin + step] < bound:
        begin += step
        step *= 2
    return _first_from(rows, begin, min(end, begin + step), bound)
