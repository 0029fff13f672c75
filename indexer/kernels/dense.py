"""Dot products with stored vectors, and the best of them.

Vectors are bfloat16 (as uint16) or 8-bit integers. The latter have a scale each; `scales` is empty for the
former. `vector_of_row` says which vector each row has, ascending; empty where row i has vector i. A sum is
taken in one order that depends on its length alone, so scores are bit-identical whichever block or segment a
row is in.
"""

from typing import Any

import numpy as np
from numba import njit, types
from numba.extending import overload
from numpy.typing import NDArray

from indexer.kernels.prefetch import prefetch
from indexer.kernels.scalars import Int, Real
from indexer.kernels.top import cut, float_of_bits, pack, ranking, room_for

LINE = 64  # bytes that memory gives at a time
AHEAD = 6144  # bytes of scattered vectors to ask for before they are summed
MOSTLY = 0.8
"""Where more than this share of rows is allowed, scoring all of them is quicker than listing these."""


def _component(code):  # type: ignore[no-untyped-def]  # numba wants the very signature of what stands for it
    """What a stored component stands for, before its vector's scale; by its type.

    Compiled code takes `_component_of` for it, which chooses before it runs.
    """
    return np.float32(code) if isinstance(code, np.int8) else float_of_bits(np.uint32(code) << np.uint32(16))


@overload(_component)
def _component_of(code):  # type: ignore[no-untyped-def]
    if code == types.uint16:
        return lambda code: float_of_bits(np.uint32(code) << np.uint32(16))
    return (lambda code: np.float32(code)) if code == types.int8 else None


@njit(nogil=True, cache=True, fastmath={"reassoc", "contract"})
def _dot(vector: NDArray[Any], query: NDArray[np.float32]) -> np.float32:
    total = np.float32(0)
    for i in range(len(query)):
        total += _component(vector[i]) * query[i]  # type: ignore[no-untyped-call]
    return total


@njit(nogil=True, cache=True)
def _score(
    vectors: NDArray[Any], scales: NDArray[np.float32], vector: Int, query: NDArray[np.float32]
) -> np.float32:
    if len(scales) == 0:
        return _dot(vectors[vector], query)
    return np.float32(_dot(vectors[vector], query) * scales[vector])


@njit(nogil=True, cache=True)
def _vector(vector_of_row: NDArray[np.uint32], row: Int) -> np.int64:
    return np.int64(row) if len(vector_of_row) == 0 else np.int64(vector_of_row[row])


@njit(nogil=True, cache=True)
def _ask_for(components: NDArray[Any], begin: Int, dim: Int) -> None:
    for i in range(0, dim, LINE // components.itemsize):
        prefetch(components, begin + i)


@njit(nogil=True, cache=True)
def dot_rows(
    vectors: NDArray[Any],
    scales: NDArray[np.float32],
    vector_of_row: NDArray[np.uint32],
    query: NDArray[np.float32],
    rows: NDArray[np.int64],
) -> NDArray[np.float32]:
    """Dot products of `query` with the vectors of some rows, in their order."""
    scores, components, dim = np.empty(len(rows), np.float32), vectors.reshape(-1), vectors.shape[1]
    ahead = max(1, AHEAD // max(1, dim * vectors.itemsize))
    last, score = np.int64(-1), np.float32(0)
    for i in range(len(rows)):
        if i + ahead < len(rows):
            _ask_for(components, _vector(vector_of_row, rows[i + ahead]) * dim, dim)
        vector = _vector(vector_of_row, rows[i])
        if vector != last:
            score, last = _score(vectors, scales, vector, query), vector
        scores[i] = score
    return scores


@njit(nogil=True, cache=True)
def top_rows(
    vectors: NDArray[Any],
    scales: NDArray[np.float32],
    vector_of_row: NDArray[np.uint32],
    query: NDArray[np.float32],
    k: Int,
    allowed: NDArray[np.bool_],
    begin: Int,
    end: Int,
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """The k best rows of [begin, end) and their dot products; `allowed` is bool[rows] or empty for all.

    What is allowed is listed first unless it is nearly all: a branch that nobody can foresee at each row
    made a scan of half the rows slower than one of all of them.
    """
    keys, size, bar = np.empty(room_for(k), np.uint64), 0, np.float32(-np.inf)
    if len(allowed) == 0 or np.sum(allowed[begin:end]) > MOSTLY * (end - begin):
        last, score = np.int64(-1), np.float32(0)
        for row in range(begin, end):
            vector = _vector(vector_of_row, row)
            if vector != last:
                score, last = _score(vectors, scales, vector, query), vector
            if score >= bar and (len(allowed) == 0 or allowed[row]):
                bar, size = _keep(keys, size, k, score, row, bar)
        return ranking(keys, size, k)
    rows = _listed(allowed, begin, end)
    scores = dot_rows(vectors, scales, vector_of_row, query, rows)
    for i in range(len(rows)):
        if scores[i] >= bar:
            bar, size = _keep(keys, size, k, scores[i], rows[i], bar)
    return ranking(keys, size, k)


@njit(nogil=True, cache=True)
def _keep(
    keys: NDArray[np.uint64], size: Int, k: Int, score: Real, row: Int, bar: Real
) -> tuple[np.float32, int]:
    """Add a row whose score is not below the bar; the bar and the number of keys after it."""
    keys[size] = pack(score, row)
    if size + 1 < len(keys):
        return np.float32(bar), size + 1
    return cut(keys, size + 1, k), k


@njit(nogil=True, cache=True)
def _listed(allowed: NDArray[np.bool_], begin: Int, end: Int) -> NDArray[np.int64]:
    """The allowed rows of [begin, end), without a branch."""
    rows, size = np.empty(end - begin, np.int64), 0
    for row in range(begin, end):
        rows[size] = row
        size += allowed[row]
    return rows[:size]


@njit(nogil=True, cache=True)
def largest_square(vectors: NDArray[Any], scales: NDArray[np.float32]) -> float:
    """The largest sum of squares of a vector, in float64; 0 of none."""
    largest = 0.0
    for vector in range(len(vectors)):
        total = _square(vectors[vector])
        if len(scales):
            total *= np.float64(scales[vector]) * np.float64(scales[vector])
        largest = max(largest, total)
    return largest


@njit(nogil=True, cache=True, fastmath={"reassoc", "contract"})
def _square(vector: NDArray[Any]) -> float:
    total = 0.0
    for i in range(len(vector)):
        component = np.float64(_component(vector[i]))  # type: ignore[no-untyped-call]
        total += component * component
    return total
