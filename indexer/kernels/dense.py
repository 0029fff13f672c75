"""Dot products with bfloat16 rows, and the best of them.

A row's sum is taken in one order that depends on its length alone, so scores
are bit-identical whichever block or segment a row is in.
"""

from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic
from numpy.typing import NDArray

from indexer.kernels.top import push, settle


@intrinsic
def _widen(typing_context: Any, half: Any) -> Any:
    """A bfloat16 held in a uint16 as float32: its bits are the upper half."""

    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        wide = builder.zext(arguments[0], ir.IntType(32))
        return builder.bitcast(builder.shl(wide, ir.Constant(ir.IntType(32), 16)), ir.FloatType())

    return types.float32(types.uint16), build


@njit(nogil=True, cache=True, fastmath={"reassoc", "contract"})
def _dot(row: NDArray[np.uint16], query: NDArray[np.float32]) -> np.float32:
    total = np.float32(0)
    for i in range(len(query)):
        total += _widen(row[i]) * query[i]  # type: ignore[call-arg]
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
    k: int,
    allowed: NDArray[np.bool_],
    begin: int,
    end: int,
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """The k best rows of [begin, end) and their dot products; `allowed` is bool[rows] or empty for all."""
    room = max(0, min(k, end - begin))
    rows, scores = np.empty(room, np.int64), np.empty(room, np.float32)
    size = 0
    for row in range(begin, end if room > 0 else begin):
        if len(allowed) == 0 or allowed[row]:
            score: Any = _dot(vectors[row], query)
            if size < room or score > scores[0]:
                size = push(scores, rows, size, score, row)
    settle(scores, rows, size)
    return rows[:size], scores[:size]
