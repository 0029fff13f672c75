"""Token vectors of ragged rows: collected for a product of matrices, and its result reduced to scores.

A row's vectors lie at `starts[row]:starts[row + 1]`. Products of int8 codes are integers and therefore exact;
what follows is one float32 multiplication a product, a maximum, and a sum in the order of the question's
vectors, so a score has the same bits in whatever batch or segment it is computed.
"""

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from indexer.kernels.scalars import Real

NOTHING = np.float32(-1.0)
"""The score of a row without vectors: the lowest cosine."""


@njit(nogil=True, cache=True)
def gather(
    codes: NDArray[np.int8],
    scales: NDArray[np.float32],
    starts: NDArray[np.int64],
    rows: NDArray[np.int64],
    out_codes: NDArray[np.int8],
    out_scales: NDArray[np.float32],
) -> None:
    """Copy the vectors of some rows one after another: codes int8 [vectors * dim] with a scale each."""
    dim, at = len(codes) // max(1, len(scales)), 0
    for row in rows:
        begin, end = starts[row], starts[row + 1]
        _copy(codes[begin * dim : end * dim], out_codes[at * dim :])
        _copy(scales[begin:end], out_scales[at:])
        at += end - begin


@njit(nogil=True, cache=True)
def _copy(source: NDArray[Any], target: NDArray[Any]) -> None:
    """Fill the first of `target`: numba makes vector instructions of this, and not of an assignment."""
    for i in range(len(source)):
        target[i] = source[i]


@njit(nogil=True, cache=True)
def gather_packed(
    packed: NDArray[np.uint8],
    scales: NDArray[np.float32],
    starts: NDArray[np.int64],
    rows: NDArray[np.int64],
    nearest: NDArray[np.uint16],
    spreads: NDArray[np.uint8],
    centroids: NDArray[np.int8],
    book_of: NDArray[np.uint16],
    pairs: NDArray[np.uint16],
    out_codes: NDArray[np.int8],
    out_pairs: NDArray[np.uint16],
    out_scales: NDArray[np.float32],
) -> None:
    """As `gather`, of vectors stored as the number of a centroid and residuals of half a byte.

    `pairs`, uint16 [books, spreads, 256], has the two int8 residuals that a byte stands for, and `book_of`
    each centroid's codebook. `out_pairs` is the memory of `out_codes`, two codes an element.
    """
    at = 0
    for row in rows:
        for vector in range(starts[row], starts[row + 1]):
            centroid = nearest[vector]
            _look_up(pairs[book_of[centroid], spreads[vector]], packed[vector], out_pairs[at])
            _add(centroids[centroid], out_codes[at])
            out_scales[at] = scales[vector]
            at += 1


@njit(nogil=True, cache=True)
def _look_up(table: NDArray[np.uint16], places: NDArray[np.uint8], out: NDArray[np.uint16]) -> None:
    for i in range(len(places)):
        out[i] = table[places[i]]


@njit(nogil=True, cache=True)
def _add(source: NDArray[np.int8], target: NDArray[np.int8]) -> None:
    for i in range(len(source)):
        target[i] += source[i]


@njit(nogil=True, cache=True)
def bests(
    products: NDArray[np.int32], scales: NDArray[np.float32], offsets: NDArray[np.int64], columns: int
) -> NDArray[np.float32]:
    """The largest product of each row with each of the question's vectors, float32 [rows, columns].

    `products`, int32 [vectors, columns or more], are of codes; `scales` those of the rows' vectors. Minus
    infinity for a row without vectors.
    """
    found = np.full((len(offsets) - 1, columns), np.float32(-np.inf))
    for row in range(len(found)):
        best = found[row]
        for vector in range(offsets[row], offsets[row + 1]):
            scale, of_vector = scales[vector], products[vector]
            for i in range(columns):
                best[i] = max(best[i], np.float32(of_vector[i]) * scale)
    return found


@njit(nogil=True, cache=True)
def means(found: NDArray[np.float32], scales: NDArray[np.float32]) -> NDArray[np.float32]:
    """Mean over a question's vectors, with their scales, of the best products that `bests` gives."""
    scores = np.empty(len(found), np.float32)
    for row in range(len(found)):
        total = 0.0
        for i in range(len(scales)):
            total += np.float64(found[row, i] * scales[i])
        scores[row] = NOTHING if found[row, 0] == -np.inf else np.float32(total / len(scales))
    return scores


@njit(nogil=True, cache=True)
def pack_residuals(
    vectors: NDArray[np.float32],
    centroids: NDArray[np.int8],
    steps: NDArray[np.float32],
    spreads: NDArray[np.float64],
    values: NDArray[np.int8],
    nearest: NDArray[np.uint16],
    out_spreads: NDArray[np.uint8],
    packed: NDArray[np.uint8],
    scales: NDArray[np.float32],
) -> None:
    """Fill `out_spreads`, `packed`, uint8 [vectors, dim / 2] of zeros, and `scales` with some vectors' codes.

    Residuals are those of the vectors' directions from their `nearest` centroids, in steps of these. What
    codes stand for is `values`, int8 [spreads, 16]. The scale gives what is decoded the length of the
    original. An even dimension is the lower half of its byte.
    """
    residuals = np.empty(vectors.shape[1], np.float64)
    for vector in range(len(vectors)):
        x, centroid = vectors[vector], centroids[nearest[vector]]
        length, largest, decoded = _length(x), 0.0, 0.0
        unit = np.float64(steps[nearest[vector]]) * length if length > 0 else 1.0
        for i in range(len(x)):
            residuals[i] = x[i] / unit - centroid[i]
            largest = max(largest, abs(residuals[i]))
        spread = _first_from(spreads, largest)
        for i in range(len(x)):
            code = _closest(values[spread], residuals[i])
            value = np.float64(centroid[i]) + np.float64(values[spread, code])
            decoded += value * value
            packed[vector, i >> 1] |= np.uint8(code << (4 * (i & 1)))
        out_spreads[vector] = spread
        scales[vector] = length / np.sqrt(decoded) if decoded > 0 else 0.0


@njit(nogil=True, cache=True)
def _length(x: NDArray[np.float32]) -> np.float64:
    total = 0.0
    for value in x:
        total += np.float64(value) * np.float64(value)
    return np.float64(np.sqrt(total))


@njit(nogil=True, cache=True)
def _first_from(spreads: NDArray[np.float64], largest: Real) -> int:
    """The number of the first spread that is not smaller; the last if all are."""
    for i in range(len(spreads) - 1):
        if spreads[i] >= largest:
            return i
    return len(spreads) - 1


@njit(nogil=True, cache=True)
def _closest(values: NDArray[np.int8], residual: Real) -> int:
    """The number of the ascending value that is closest; of two the larger."""
    below = 0
    for i in range(len(values) - 1):
        below += np.float64(values[i]) + np.float64(values[i + 1]) <= 2 * residual
    return below
