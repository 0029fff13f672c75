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

CUTOFFS = 15
"""Borders between the 16 values that half a byte can have."""


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
    centroids: NDArray[np.int8],
    book_of: NDArray[np.uint16],
    pairs: NDArray[np.uint16],
    out_codes: NDArray[np.int8],
    out_pairs: NDArray[np.uint16],
    out_scales: NDArray[np.float32],
) -> None:
    """As `gather`, of vectors stored as the number of a centroid and residuals of half a byte.

    `pairs`, uint16 [books, 256], has the two int8 residuals that a byte of a codebook stands for, and
    `book_of` each centroid's codebook. `out_pairs` is the memory of `out_codes`, two codes an element.
    """
    at = 0
    for row in rows:
        for vector in range(starts[row], starts[row + 1]):
            centroid = nearest[vector]
            _look_up(pairs[book_of[centroid]], packed[vector], out_pairs[at])
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
    nearest: NDArray[np.uint16],
    centroids: NDArray[np.int8],
    step: Real,
    cutoffs: NDArray[np.float32],
    weights: NDArray[np.int8],
    packed: NDArray[np.uint8],
    scales: NDArray[np.float32],
) -> None:
    """Fill `packed`, uint8 [vectors, dim / 2], and `scales` with the residual codes of some vectors.

    Residuals are those of the vectors' directions, in units of `step`; the scale gives what is decoded the
    length of the original. An even dimension is the lower half of its byte.
    """
    for vector in range(len(vectors)):
        x, centroid = vectors[vector], centroids[nearest[vector]]
        length, decoded = _length(x), 0.0
        unit = np.float64(step) * length if length > 0 else 1.0
        for i in range(len(x)):
            code = _bucket(cutoffs, x[i] / unit - centroid[i])
            value = np.float64(centroid[i]) + np.float64(weights[code])
            decoded += value * value
            packed[vector, i >> 1] |= np.uint8(code << (4 * (i & 1)))
        scales[vector] = length / np.sqrt(decoded) if decoded > 0 else 0.0


@njit(nogil=True, cache=True)
def _length(x: NDArray[np.float32]) -> np.float64:
    total = 0.0
    for value in x:
        total += np.float64(value) * np.float64(value)
    return np.float64(np.sqrt(total))


@njit(nogil=True, cache=True)
def _bucket(cutoffs: NDArray[np.float32], value: Real) -> int:
    """How many borders are at or below a value."""
    below = 0
    for cutoff in cutoffs:
        below += cutoff <= value
    return below
