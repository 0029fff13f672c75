"""The forward index of sparse vectors: every row's components packed, the heaviest first.

A component is one unsigned 32-bit number, `rank << 16 | code`: the term's rank by document frequency, so
that common terms lie together in the table of a question's weights, and the weight as a multiple of one
step. A row's 32 heaviest components are its *head*, two aligned cache lines at a place that needs no look-up;
the rest are its *tail*, padded to eight. A padding component is 0: rank 0, no weight.

Products of codes and a question's integer weights are summed in unsigned 32-bit integers. A question's
weights sum to 65,535 at most, so nothing overflows; integer sums do not depend on their order, so every way
to a score gives the same bits.
"""

from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from indexer.kernels.prefetch import prefetch
from indexer.kernels.scalars import Int, Real
from indexer.kernels.terms import Asked, clear_table, set_table
from indexer.kernels.top import GRAIN, decoded, from_heap, into_heap, key_of

HEAD = 32
"""Components of a head."""

UNIT = 8
"""Components that a tail is padded to, and the unit its start is counted in."""

TOGETHER = 48
"""Rows that are scanned together: enough for their cache misses to overlap."""

LINE = np.uint64(16)
"""Components of a cache line."""

TAIL_LINES = 6
"""Cache lines of a tail that are asked for: 96 components."""

AHEAD = 4
"""How many rows before its turn a row's tail is asked for."""

TABLE = 1 << 16
"""Ranks there can be, so that no component's rank is outside of a table of weights."""

CODE = np.uint32(0xFFFF)
RANK = np.uint32(16)


class Forward(NamedTuple):
    """Packed rows: heads uint32[rows * HEAD], tails, and where these start in units, uint32[rows + 1]."""

    head: NDArray[np.uint32]
    tail: NDArray[np.uint32]
    tail_starts: NDArray[np.uint32]


@njit(nogil=True, cache=True)
def pack_rows(
    offsets: NDArray[np.int64], ranks: NDArray[np.uint16], codes: NDArray[np.uint16], forward: Forward
) -> None:
    """Fill `forward`, all zeros but for its starts, with rows given as CSR. Equal codes go by rank."""
    for row in range(len(offsets) - 1):
        begin, length = offsets[row], offsets[row + 1] - offsets[row]
        keys = np.empty(length, np.uint32)
        for i in range(length):
            keys[i] = (np.uint32(codes[begin + i]) << RANK) | (CODE - np.uint32(ranks[begin + i]))
        keys.sort()
        for i in range(length):
            key = keys[length - 1 - i]
            _put(forward, row, i, ((CODE - (key & CODE)) << RANK) | (key >> RANK))


@njit(nogil=True, cache=True)
def move_rows(
    source: Forward, keep: NDArray[np.bool_], new_rank: NDArray[np.int32], forward: Forward, first: Int
) -> None:
    """Copy the kept rows of `source` to `forward` from row `first` on, their ranks replaced."""
    row, components = np.int64(first), buffer(source)
    for old in range(len(keep)):
        if keep[old]:
            for i in range(read_row(source, old, components)):
                x = components[i]
                rank = np.uint32(new_rank[x >> RANK])
                _put(forward, row, i, (rank << RANK) | (x & CODE))
            row += 1


@njit(nogil=True, cache=True)
def lengths(forward: Forward, rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """Number of components of some rows."""
    found = np.empty(len(rows), np.int64)
    for i in range(len(rows)):
        found[i] = length_of(forward, rows[i])
    return found


@njit(nogil=True, cache=True)
def frequencies(forward: Forward, keep: NDArray[np.bool_], counts: NDArray[np.int64]) -> None:
    """Add to `counts`, int64[ranks], in how many kept rows each rank occurs."""
    components = buffer(forward)
    for row in range(len(keep)):
        if keep[row]:
            for i in range(read_row(forward, row, components)):
                counts[components[i] >> RANK] += 1


@njit(nogil=True, cache=True)
def unpack(
    forward: Forward, rows: NDArray[np.int64], offsets: NDArray[np.int64]
) -> tuple[NDArray[np.uint16], NDArray[np.uint16]]:
    """Ranks and codes of some rows, heaviest first; row i of them is `offsets[i]:offsets[i + 1]`."""
    ranks, codes = np.empty(offsets[-1], np.uint16), np.empty(offsets[-1], np.uint16)
    for at in range(len(rows)):
        for i in range(offsets[at + 1] - offsets[at]):
            x = component(forward, rows[at], i)
            ranks[offsets[at] + i], codes[offsets[at] + i] = x >> RANK, x & CODE
    return ranks, codes


@njit(nogil=True, cache=True)
def length_of(forward: Forward, row: Int) -> np.int64:
    """Number of components of a row: up to the first that has no weight."""
    tail = np.int64(forward.tail_starts[row + 1]) - np.int64(forward.tail_starts[row])
    room = HEAD + UNIT * tail
    low, high = 0 if tail == 0 else room - UNIT, room
    while low < high:
        middle = (low + high) // 2
        if component(forward, row, middle) & CODE:
            low = middle + 1
        else:
            high = middle
    return np.int64(low)


@njit(nogil=True, cache=True)
def read_row(forward: Forward, row: Int, components: NDArray[np.uint32]) -> np.int64:
    """Copy a row's components, heaviest first, to a buffer with room for the longest; how many they are."""
    count, begin = length_of(forward, row), np.int64(row) * HEAD
    first = min(count, np.int64(HEAD))
    components[:first] = forward.head[begin : begin + first]
    begin = np.int64(forward.tail_starts[row]) * UNIT
    components[first:count] = forward.tail[begin : begin + count - first]
    return count


@njit(nogil=True, cache=True)
def buffer(forward: Forward) -> NDArray[np.uint32]:
    """Room for the components of any row."""
    most = np.int64(0)
    for row in range(len(forward.tail_starts) - 1):
        most = max(most, np.int64(forward.tail_starts[row + 1]) - np.int64(forward.tail_starts[row]))
    return np.empty(HEAD + UNIT * most, np.uint32)


@njit(nogil=True, cache=True)
def component(forward: Forward, row: Int, i: Int) -> Int:
    """The i-th heaviest component of a row; 0 behind the last."""
    if i < HEAD:
        return forward.head[row * HEAD + i]
    return forward.tail[np.int64(forward.tail_starts[row]) * UNIT + i - HEAD]


@njit(nogil=True, cache=True)
def _put(forward: Forward, row: Int, i: Int, x: Int) -> None:
    if i < HEAD:
        forward.head[row * HEAD + i] = x
    else:
        forward.tail[np.int64(forward.tail_starts[row]) * UNIT + i - HEAD] = x


@njit(nogil=True, cache=True)
def sum_products(packed: NDArray[np.uint32], begin: Int, end: Int, table: NDArray[np.uint32]) -> np.uint32:
    """Sum over components [begin, end) of code times the table's weight for the rank."""
    total = np.uint32(0)
    for i in range(np.uint64(begin), np.uint64(end)):
        x = packed[i]
        total = np.uint32(total + np.uint32(table[x >> RANK] * (x & CODE)))
    return total


@njit(nogil=True, cache=True)
def scores_of(
    forward: Forward, rows: NDArray[np.int64], asked: Asked, table: NDArray[np.uint32]
) -> NDArray[np.float32]:
    """The scores of some rows, in the order given; 0 where nothing matches. `table` as for `scan`."""
    set_table(table, asked)
    scores = np.zeros(len(rows), np.float32)
    for i in range(len(rows)):
        at = np.uint64(rows[i]) * np.uint64(HEAD)
        score = sum_products(forward.head, at, at + np.uint64(HEAD), table)
        score = np.uint32(score + tail_score(forward, rows[i], table))
        if score > 0:
            scores[i] = decoded(np.full(1, key_of((score >> GRAIN) + 1, 0)), asked.factor)[1][0]
    clear_table(table, asked)
    return scores


@njit(nogil=True, cache=True)
def scan(
    forward: Forward, rows: NDArray[np.uint32], asked: Asked, k: Int, table: NDArray[np.uint32]
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """The k best of these rows that share a term with the question, and their scores, best first.

    `table`, uint32[TABLE], is scratch, all zero before and after.
    """
    set_table(table, asked)
    heap, bar = np.zeros(k, np.uint64), max(np.uint32(asked.floor), np.uint32(1))
    heads, kept = np.empty(TOGETHER, np.uint32), np.empty(TOGETHER, np.uint32)
    for row in rows[:TOGETHER]:
        ask_for_head(forward, row)
    for begin in range(0, len(rows), TOGETHER):
        for row in rows[begin + TOGETHER : begin + 2 * TOGETHER]:
            ask_for_head(forward, row)
        some = rows[begin : begin + TOGETHER]
        bar = score_rows(forward, some, table, 0.0, bar, heap, heads, kept)
    clear_table(table, asked)
    return decoded(from_heap(heap), asked.factor)


@njit(nogil=True, cache=True)
def score_rows(
    forward: Forward,
    rows: NDArray[np.uint32],
    table: NDArray[np.uint32],
    dismissal: Real,
    bar: Int,
    heap: NDArray[np.uint64],
    heads: NDArray[np.uint32],
    kept: NDArray[np.uint32],
) -> np.uint32:
    """Put the rows that score `bar` or more into the heap; the bar after it.

    First all heads, which the caller has asked for, then the tails of those with `dismissal` times the bar or
    more. `heads` and `kept` are scratch as long as `rows`.
    """
    count, least = np.uint64(0), share_of(dismissal, bar)
    for row in rows:
        at = np.uint64(row) * np.uint64(HEAD)
        heads[count], kept[count] = sum_products(forward.head, at, at + np.uint64(HEAD), table), row
        count += np.uint64(heads[count] >= least)
    for row in kept[: min(count, np.uint64(AHEAD))]:
        ask_for_tail(forward, row)
    for i in range(count):
        if i + np.uint64(AHEAD) < count:
            ask_for_tail(forward, kept[i + np.uint64(AHEAD)])
        if heads[i] >= least:
            score = np.uint32(heads[i] + tail_score(forward, kept[i], table))
            if score >= bar:
                bar = into_heap(heap, score, kept[i], bar)
                least = share_of(dismissal, bar)
    return np.uint32(bar)


@njit(nogil=True, cache=True)
def share_of(share: Real, score: Int) -> np.uint32:
    """This share of a score, rounded down."""
    return np.uint32(np.float64(share) * np.float64(score))


@njit(nogil=True, cache=True)
def tail_score(forward: Forward, row: Int, table: NDArray[np.uint32]) -> np.uint32:
    """What a row's tail adds to its score."""
    begin = np.uint64(forward.tail_starts[row]) * np.uint64(UNIT)
    end = np.uint64(forward.tail_starts[np.uint64(row) + np.uint64(1)]) * np.uint64(UNIT)
    return sum_products(forward.tail, begin, end, table)


@njit(nogil=True, cache=True)
def ask_for_head(forward: Forward, row: Int) -> None:
    """Begin to load a row's head and where its tail starts."""
    at = np.uint64(row) * np.uint64(HEAD)
    prefetch(forward.head, at)
    prefetch(forward.head, at + LINE)
    prefetch(forward.tail_starts, np.uint64(row))


@njit(nogil=True, cache=True)
def ask_for_tail(forward: Forward, row: Int) -> None:
    """Begin to load most of a row's tail."""
    at = np.uint64(forward.tail_starts[row]) * np.uint64(UNIT)
    for line in range(TAIL_LINES):
        prefetch(forward.tail, at + np.uint64(line) * LINE)
