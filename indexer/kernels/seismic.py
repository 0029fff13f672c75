"""Approximate search of sparse vectors after Seismic, with a layout and a loop of our own.

Every term has a pruned list of rows, cut into blocks of similar ones; a block's summary is the maximum of its
rows' components, lightest ones left out (`seismic_build`). A search scores the summaries of the heaviest
terms' blocks, takes blocks in order of these scores, and scores their rows exactly: first all heads of some
rows, then only the tails of those whose head promises enough. It ends when the next block's summary is less
than `heap_factor` times the k-th best score.

Bruch, Nardini, Rulli and Venturini, "Efficient Inverted Indexes for Approximate Retrieval over Learned Sparse
Representations", SIGIR 2024. Theirs takes list after list and skips blocks; `dismissal` is ours: rows whose
head has less than this share of the k-th best score are dropped. It is no bound; 0 turns it off.
"""

from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from indexer.kernels.forward import Forward, ask_for_head, score_rows, share_of, sum_products
from indexer.kernels.prefetch import prefetch
from indexer.kernels.scalars import Int, Real
from indexer.kernels.terms import Asked, clear_table, heaviest, set_table
from indexer.kernels.top import decoded, from_heap

BLOCK_UNIT = 16
"""Components that a summary is padded to, and the unit its start is counted in."""

GATHERED = 48
"""Rows that are scored together: enough for their cache misses to overlap."""

BUCKETS = 256
AHEAD = 6
"""How many blocks before its turn a block's rows are asked for."""


class Lists(NamedTuple):
    """Blocks of term t: `of_term[t]:of_term[t + 1]`; rows and summary of a block alike, the latter in units.

    No block has more than `longest` rows.
    """

    of_term: NDArray[np.uint32]
    rows_from: NDArray[np.uint32]
    rows: NDArray[np.uint32]
    summary_from: NDArray[np.uint32]
    summaries: NDArray[np.uint32]
    longest: int


class Knobs(NamedTuple):
    """How many of the heaviest terms' lists are looked at, and the two shares of the k-th best score."""

    query_cut: int
    heap_factor: float
    dismissal: float


class Space(NamedTuple):
    """Scratch of a thread. `table` is all zero between searches; `seen` has a bit for each row.

    `score`, `block` and `order` have room for the blocks of the lists looked at, `found` for one row more
    than there are, since a row is written before it is known to be new.
    """

    table: NDArray[np.uint32]
    seen: NDArray[np.uint32]
    score: NDArray[np.uint32]
    block: NDArray[np.uint32]
    order: NDArray[np.uint32]
    found: NDArray[np.uint32]


@njit(nogil=True, cache=True)
def search(
    forward: Forward,
    lists: Lists,
    asked: Asked,
    knobs: Knobs,
    k: Int,
    closed: NDArray[np.uint32],
    space: Space,
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """About the k best rows, and their exact scores, best first.

    `closed` has a bit for each row, the lowest first, set where the row must not be found.
    """
    set_table(space.table, asked)
    chosen, _ = heaviest(asked, knobs.query_cut)
    blocks, most = _score_blocks(lists, chosen, space)
    _order_blocks(blocks, most, space)
    heap = np.zeros(k, np.uint64)
    space.seen[: len(closed)] = closed
    _visit(forward, lists, blocks, knobs, asked.floor, heap, space)
    clear_table(space.table, asked)
    return decoded(from_heap(heap), asked.factor)


@njit(nogil=True, cache=True)
def _score_blocks(lists: Lists, ranks: NDArray[np.int64], space: Space) -> tuple[np.int64, np.uint32]:
    """Score the summaries of these terms' blocks; how many they are, and the highest score."""
    table, summaries = space.table, lists.summaries
    count, most = np.uint64(0), np.uint32(0)
    for rank in ranks:
        begin, end = np.uint64(lists.of_term[rank]), np.uint64(lists.of_term[rank + 1])
        at = np.uint64(lists.summary_from[begin]) * np.uint64(BLOCK_UNIT)
        for block in range(begin, end):
            stop = np.uint64(lists.summary_from[block + np.uint64(1)]) * np.uint64(BLOCK_UNIT)
            total = sum_products(summaries, at, stop, table)
            space.score[count], space.block[count] = total, block
            most, at = max(most, total), stop
            count += np.uint64(1)
    return np.int64(count), most


@njit(nogil=True, cache=True)
def _order_blocks(count: Int, most: Int, space: Space) -> None:
    """Blocks by falling score, in so many buckets."""
    places = np.zeros(BUCKETS + 1, np.uint32)
    scale = np.float32(BUCKETS - 1) / np.float32(max(most, np.uint32(1)))
    for i in range(np.uint64(count)):
        places[_bucket(space.score[i], most, scale) + np.uint64(1)] += np.uint32(1)
    for i in range(1, BUCKETS + 1):
        places[i] += places[i - 1]
    for i in range(np.uint64(count)):
        bucket = _bucket(space.score[i], most, scale)
        space.order[places[bucket]] = i
        places[bucket] += np.uint32(1)


@njit(nogil=True, cache=True)
def _bucket(score: Int, most: Int, scale: Real) -> np.uint64:
    return np.uint64(np.float32(np.uint32(most - score)) * scale)


@njit(nogil=True, cache=True)
def _visit(
    forward: Forward,
    lists: Lists,
    count: Int,
    knobs: Knobs,
    floor: Int,
    heap: NDArray[np.uint64],
    space: Space,
) -> None:
    """Score rows block by block into the heap."""
    heads = np.empty(GATHERED + lists.longest, np.uint32)
    kept = np.empty(GATHERED + lists.longest, np.uint32)
    bar, at, begin = max(np.uint32(floor), np.uint32(1)), np.uint64(0), np.uint64(0)
    while True:
        least = share_of(knobs.heap_factor, bar)
        at, end = _gather(forward, lists, at, np.uint64(count), least, begin, space)
        if begin == end:
            return
        rows = space.found[begin:end]
        bar = score_rows(forward, rows, space.table, knobs.dismissal, bar, heap, heads, kept)
        begin = end


@njit(nogil=True, cache=True)
def _gather(
    forward: Forward, lists: Lists, at: Int, count: Int, least: Int, begin: Int, space: Space
) -> tuple[np.uint64, np.uint64]:
    """Meet the rows of the next blocks until there are enough; the block to go on with, and how many are met.

    Blocks whose summary scores less than `least` are passed over.
    """
    end, found, seen = begin, space.found, space.seen
    while at < count and end < begin + np.uint64(GATHERED):
        number = space.order[at]
        at += np.uint64(1)
        if at + np.uint64(AHEAD) < count:
            ahead = space.block[space.order[at + np.uint64(AHEAD)]]
            prefetch(lists.rows, np.uint64(lists.rows_from[ahead]))
        if space.score[number] < least:
            continue
        block = np.uint64(space.block[number])
        for i in range(np.uint64(lists.rows_from[block]), np.uint64(lists.rows_from[block + np.uint64(1)])):
            row = lists.rows[i]
            bits, bit = seen[row >> np.uint32(5)], np.uint32(np.uint32(1) << (row & np.uint32(31)))
            found[end] = row
            end += np.uint64((bits & bit) == 0)
            seen[row >> np.uint32(5)] = bits | bit
            ask_for_head(forward, row)
    return at, end
