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

from indexer.kernels.scalars import Int
from indexer.kernels.top import keep_best, ranked, room_for

HEAD = 32
"""Components of a head."""

UNIT = 8
"""Components that a tail is padded to, and the unit its start is counted in."""

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
    row = np.int64(first)
    for old in range(len(keep)):
        if keep[old]:
            for i in range(length_of(source, old)):
                x = component(source, old, i)
                rank = np.uint32(new_rank[x >> RANK])
                _put(forward, row, i, (rank << RANK) | (x & CODE))
            row += 1


@njit(nogil=True, cache=True)
def lengths(forward: Forward) -> NDArray[np.int64]:
    """Number of components of every row."""
    rows = len(forward.tail_starts) - 1
    found = np.empty(rows, np.int64)
    for row in range(rows):
        found[row] = length_of(forward, row)
    return found


@njit(nogil=True, cache=True)
def frequencies(forward: Forward, keep: NDArray[np.bool_], counts: NDArray[np.int64]) -> None:
    """Add to `counts`, int64[ranks], in how many kept rows each rank occurs."""
    for row in range(len(keep)):
        if keep[row]:
            for i in range(length_of(forward, row)):
                counts[component(forward, row, i) >> RANK] += 1


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
def score_row(forward: Forward, row: Int, table: NDArray[np.uint32]) -> np.uint32:
    """The score of one row."""
    begin = np.int64(row) * HEAD
    score = sum_products(forward.head, begin, begin + HEAD, table)
    begin = np.int64(forward.tail_starts[row]) * UNIT
    end = np.int64(forward.tail_starts[row + 1]) * UNIT
    return np.uint32(score + sum_products(forward.tail, begin, end, table))


@njit(nogil=True, cache=True)
def scores_of(forward: Forward, rows: NDArray[np.int64], table: NDArray[np.uint32]) -> NDArray[np.uint32]:
    """The scores of some rows, in the order given."""
    scores = np.empty(len(rows), np.uint32)
    for i in range(len(rows)):
        scores[i] = score_row(forward, rows[i], table)
    return scores


@njit(nogil=True, cache=True)
def scan(
    forward: Forward, rows: NDArray[np.int64], table: NDArray[np.uint32], k: Int, floor: Int
) -> NDArray[np.uint64]:
    """Keys (see `top`) of the k best of these rows, best first, with scores above 0 and at least `floor`."""
    keys, size, bar = np.empty(room_for(k), np.uint64), np.int64(0), max(np.uint32(floor), np.uint32(1))
    for row in rows:
        score = score_row(forward, row, table)
        if score >= bar:
            bar, size = keep_best(keys, size, k, score, row, bar)
    return ranked(keys, size, k)
