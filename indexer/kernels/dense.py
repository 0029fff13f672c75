"""Dot products with bfloat16 rows, and the best of them.

A row's sum is taken in one order that depends on its length alone, so scores
are bit-identical whichever block or segment a row is in.
"""

import numpy as np
from numba import njit
from numpy.typing import NDArray

from indexer.kernels.scalars import Int
from indexer.kernels.top import cut, float_of_bits, pack, ranking, room_for


@njit(nogil=True, cache=True, fastmath={"reassoc", "contract"})
def _dot(row: NDArray[np.uint16], query: NDArray[np.float32]) -> np.float32:
    total = np.float32(0)
    for i in range(len(query)):
        total += float_of_bits(np.uint32(row[i]) << np.uint32(16)) * query[i]
    return total


@njit(nogil=True, cache=True)
def dot_rows(
    vectors: NDArray[np.uint16], query: NDArray[np.float32], rows: NDArray[np.int64]
) -> NDArray[np.float32]:
    """Dot products of `query` with `vectors[rows]`."""
    scores = np.empty(len(rows), np.float32)
    for i in range(len(rows)):
        scores[i] = _dot(vectors[rows[i]], query)
    return scores


@njit(nogil=True, cache=True)
def top_rows(
    vectors: NDArray[np.uint16],
    query: NDArray[np.float32],
    k: Int,
    allowed: NDArray[np.bool_],
    begin: Int,
    end: Int,
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """The k best rows of [begin, end) and their dot products; `allowed` is bool[rows] or empty for all."""
    keys, size, bar = np.empty(room_for(k), np.uint64), 0, np.float32(-np.inf)
    for row in range(begin, end):
        if len(allowed) == 0 or allowed[row]:
            score = _dot(vectors[row], query)
            if score >= bar:
                keys[size] = pack(score, row)
                size += 1
                if size == len(keys):
                    bar, size = cut(keys, size, k), k
    return ranking(keys, size, k)
