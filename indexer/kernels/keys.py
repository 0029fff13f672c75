"""Keys of ragged rows: collected for a product of matrices, and its result reduced to parts of a softmax.

A row's tokens lie at `starts[row]:starts[row + 1]`, each with a key for every key-value head. Products of
int8 codes are integers and therefore exact. What follows takes each row by itself, token after token from its
first, so its part of a softmax has the same bits in whatever batch or segment it is computed.
"""

from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic
from numpy.typing import NDArray

from indexer.kernels.scalars import Real

FINE = 254
"""Steps of a question's second plane in one of its first: from -127 to 127 they reach half a step each way.
"""

FIXED = float(1 << 36)
"""Masses are added as whole numbers of this fraction of the largest, since integers have the same sum in
whatever order; an int64 holds those of 100 million tokens.
"""

LOG2_E = np.float32(1.4426950408889634)
LOWEST = np.float32(-126.0)
"""Powers of two below this one are taken for it: a share of 1e-38."""


@njit(nogil=True, cache=True)
def gather(
    codes: NDArray[np.int8],
    scales: NDArray[np.uint16],
    starts: NDArray[np.int64],
    rows: NDArray[np.int64],
    out_codes: NDArray[np.int8],
    out_scales: NDArray[np.float32],
) -> None:
    """Copy the keys of some rows one after another, each head's together.

    From codes int8 [tokens, heads * dim] and scales bfloat16 [tokens, heads] to int8 [heads, t, dim] and
    float32 [heads, t].
    """
    heads, _, dim = out_codes.shape
    at = 0
    for row in rows:
        for token in range(starts[row], starts[row + 1]):
            for head in range(heads):
                _copy(codes[token, head * dim : (head + 1) * dim], out_codes[head, at])
                out_scales[head, at] = _float_of(np.int32(np.uint32(scales[token, head]) << np.uint32(16)))
            at += 1


@njit(nogil=True, cache=True)
def _copy(source: NDArray[np.int8], target: NDArray[np.int8]) -> None:
    """Fill `target`: numba makes vector instructions of this, and not of an assignment."""
    for i in range(len(target)):
        target[i] = source[i]


@njit(nogil=True, cache=True)
def partials(
    products: NDArray[np.int32],
    steps: NDArray[np.float32],
    scales: NDArray[np.float32],
    offsets: NDArray[np.int64],
    columns: NDArray[np.int64],
    peaks: NDArray[np.float32],
    sums: NDArray[np.float32],
) -> None:
    """Fill in some columns of `peaks` and `sums`, float32 [rows, q], of one head's products.

    products int32 [2 * n, t] are those of n vectors' first planes, then of their second ones; steps
    float32 [n] are of the second ones; scales float32 [t] of the keys. Row i has the tokens
    `offsets[i]:offsets[i + 1]`. A sum is of exp(logit - peak); of a row without tokens the peak is minus
    infinity and the sum 0.
    """
    n, t = len(steps), offsets[-1]
    logits = np.empty(t, np.float32)
    for i in range(n):
        _logits(products[i, :t], products[n + i, :t], steps[i], scales, logits)
        for row in range(len(offsets) - 1):
            of_row = logits[offsets[row] : offsets[row + 1]]
            peaks[row, columns[i]] = _lowered(of_row)
        _exponentials(logits)
        for row in range(len(offsets) - 1):
            sums[row, columns[i]] = _sum(logits[offsets[row] : offsets[row + 1]])


@njit(nogil=True, cache=True)
def _logits(
    coarse: NDArray[np.int32],
    fine: NDArray[np.int32],
    step: Real,
    scales: NDArray[np.float32],
    logits: NDArray[np.float32],
) -> None:
    """Fill `logits`."""
    for t in range(len(logits)):
        value = np.float32(coarse[t]) * np.float32(FINE) + np.float32(fine[t])
        logits[t] = value * (step * scales[t])


@njit(nogil=True, cache=True)
def _lowered(logits: NDArray[np.float32]) -> np.float32:
    """Give the largest, minus infinity of none, and take it from each."""
    peak = _largest(logits)
    for t in range(len(logits)):
        logits[t] -= peak
    return peak


@njit(nogil=True, cache=True, fastmath={"nnan", "nsz", "reassoc"})
def _largest(values: NDArray[np.float32]) -> np.float32:
    """The largest; it is the same in whatever order, which the compiler may therefore choose."""
    peak = np.float32(-np.inf)
    for value in values:
        peak = max(peak, value)
    return peak


@njit(nogil=True, cache=True)
def _exponentials(values: NDArray[np.float32]) -> None:
    """Put exp(value) in place of each, none positive. Of all rows at once: short loops leave loose ends."""
    for t in range(len(values)):
        values[t] = _exp(values[t])


@njit(nogil=True, cache=True, fastmath={"nsz", "reassoc"})
def _sum(values: NDArray[np.float32]) -> np.float32:
    """The sum, in an order of the compiler's that depends on how many they are and on nothing else."""
    total = np.float32(0.0)
    for value in values:
        total += value
    return total


@njit(nogil=True, cache=True, inline="always")
def _exp(x: Real) -> Real:
    """exp(x) of x from -87 to 0 within 4e-6 of itself, and of smaller ones what it is of -87.

    2**(n + f) with whole n and f from -.5 to .5, by a polynomial (Taylor's, up to the seventh power) and
    the exponent's bits: no call, so that loops become vector instructions. The error is that of x / log(2)
    in float32, so near 0, where shares are large, it is 2e-7.
    """
    y = max(x * LOG2_E, LOWEST)
    n = np.floor(y + np.float32(0.5))
    f = y - n
    p = np.float32(1.5252734e-05)
    p = p * f + np.float32(1.5403530e-04)
    p = p * f + np.float32(1.3333558e-03)
    p = p * f + np.float32(9.6181291e-03)
    p = p * f + np.float32(5.5504109e-02)
    p = p * f + np.float32(2.4022651e-01)
    p = p * f + np.float32(6.9314718e-01)
    p = p * f + np.float32(1.0)
    return p * _float_of((np.int32(n) + np.int32(127)) << np.int32(23))


def _bits(typing: Any, value: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.bitcast(builder.trunc(arguments[0], ir.IntType(32)), ir.FloatType())

    return types.float32(types.int64), generate


_float_of: Any = intrinsic(_bits)
"""The float32 whose bits are an integer's lower 32."""


@njit(nogil=True, cache=True)
def masses(
    products: NDArray[np.int32],
    steps: NDArray[np.float32],
    scales: NDArray[np.float32],
    weights: NDArray[np.float32],
    mass: NDArray[np.float64],
) -> None:
    """Add to `mass`, float64 [t], what each token of one row has of each vector's softmax, times its weight.

    products, steps and scales are as in `partials`.
    """
    n = len(steps)
    logits = np.empty(len(mass), np.float32)
    for i in range(n):
        _logits(products[i], products[n + i], steps[i], scales, logits)
        _lowered(logits)
        _exponentials(logits)
        share = np.float64(weights[i]) / np.float64(_sum(logits))
        for t in range(len(mass)):
            mass[t] += share * np.float64(logits[t])


@njit(nogil=True, cache=True)
def combine(
    peaks: NDArray[np.float32], sums: NDArray[np.float32], weights: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Scores float32 [rows]: what each row has of every column's softmax over all rows, times its weight."""
    rows, q = peaks.shape
    tops, totals = np.full(q, np.float32(-np.inf)), np.zeros(q, np.int64)
    for row in range(rows):
        for i in range(q):
            tops[i] = max(tops[i], peaks[row, i])
    for row in range(rows):
        for i in range(q):
            totals[i] += _fixed(peaks[row, i], sums[row, i], tops[i])
    scores = np.zeros(rows, np.float32)
    for row in range(rows):
        score = 0.0
        for i in range(q):
            if sums[row, i] > 0:
                share = np.float64(_fixed(peaks[row, i], sums[row, i], tops[i])) / np.float64(totals[i])
                score += np.float64(weights[i]) * share
        scores[row] = np.float32(score)
    return scores


@njit(nogil=True, cache=True, inline="always")
def _fixed(peak: Real, total: Real, top: Real) -> np.int64:
    """What a row has of a softmax, as a whole number: of the row of the largest logit it is 2**36 or more."""
    if total <= 0:
        return np.int64(0)
    return np.int64(np.rint(np.float64(total) * np.float64(_exp(peak - top)) * FIXED))
