"""Token vectors as bytes: int8 with a scale, or a centroid's number and residuals of half a byte.

Either way a vector is decoded to int8 codes and one float32 scale, so a similarity is an integer product
times two scales. The scale is the vector's own: a token's vector is nearly the same at int8, and that of a
pooled one stays shorter than 1 (see `models.pooling`).

Residual codes follow Santhanam et al., "ColBERTv2", 2021: the nearest centroid by dot product, and for each
dimension which of 16 levels is nearest to what is left. Three things differ. Levels are shares of the
vector's largest residual, of which the store keeps a rounded value, so that a codebook does well with vectors
unlike those it was made from. They minimise the squared error, where quantiles have three times as much. And
centroids and levels are whole numbers of steps, so that decoding is an addition of int8 numbers; the scale
restores the length.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from indexer.kernels.maxsim import pack_residuals

LARGEST = 127
LEVELS = 16
ROUNDS = 4
"""Iterations of k-means."""

REFINED = 30
"""Iterations by which levels are refined."""

HELD_OUT, MOST_HELD_OUT = 0.05, 2000
"""Share and number of the samples that levels are made from and centroids are not."""

MOST_CENTROIDS = 1 << 16
BLOCK = 8192

HALF = 63
"""Largest number of steps of a centroid's component; what is left of int8 is for residuals."""

SPREADS = np.exp2(np.arange(25) / 4)
"""What a vector's largest residual is rounded up to, in steps of its centroid: from 1 to 64."""


class Codebook(NamedTuple):
    """What residual codes stand for.

    centroids int8 [c, dim], each in steps of its own, float32 [c]; levels float32 [16], ascending, as shares
    of a vector's largest residual.
    """

    centroids: NDArray[np.int8]
    steps: NDArray[np.float32]
    levels: NDArray[np.float32]

    def same(self, other: "Codebook") -> bool:
        """Whether both are equal bit for bit."""
        return (
            np.array_equal(self.centroids, other.centroids)
            and np.array_equal(self.steps, other.steps)
            and np.array_equal(self.levels, other.levels)
        )


class Codes(NamedTuple):
    """Vectors as int8: the i-th is `codes[i] * scales[i]`. codes int8 [n, dim], scales float32 [n]."""

    codes: NDArray[np.int8]
    scales: NDArray[np.float32]


class Packed(NamedTuple):
    """Residual codes: nearest uint16 [n], spreads uint8 [n], packed uint8 [n, dim / 2], scales float32."""

    nearest: NDArray[np.uint16]
    spreads: NDArray[np.uint8]
    packed: NDArray[np.uint8]
    scales: NDArray[np.float32]


def to_int8(vectors: NDArray[np.float32]) -> Codes:
    """Round float32 [n, dim] to 127 steps either way of each vector's largest. ValueError for NaN."""
    _check(vectors)
    largest = np.abs(vectors).max(axis=1, initial=0).astype(np.float32)
    scales = largest / np.float32(LARGEST)
    codes = np.rint(vectors / np.where(scales > 0, scales, 1)[:, None])
    return Codes(np.clip(codes, -LARGEST, LARGEST).astype(np.int8), scales)


def to_residuals(vectors: NDArray[np.float32], codebook: Codebook) -> Packed:
    """Encode float32 [n, dim]; what becomes of a vector depends on itself alone.

    The nearest centroid is chosen by integer products, so that it does not depend on the batch either.
    """
    centroids = codebook.centroids
    if centroids.shape[1:] != vectors.shape[1:]:
        raise ValueError(f"vectors of shape {vectors.shape} for centroids of {centroids.shape[1]} dimensions")
    # float64 is exact for integers of this size, and has a matrix product which int64 does not have
    products = to_int8(vectors).codes.astype(np.float64) @ centroids.T.astype(np.float64)
    packed = Packed(
        (products * codebook.steps).argmax(axis=1).astype(np.uint16),
        np.empty(len(vectors), np.uint8),
        np.zeros((len(vectors), vectors.shape[1] // 2), np.uint8),
        np.empty(len(vectors), np.float32),
    )
    steps, values = np.array(codebook.steps), values_of(codebook.levels)
    pack_residuals(np.array(vectors, np.float32), np.array(centroids), steps, SPREADS, values, *packed)
    return packed


def values_of(levels: NDArray[np.float32]) -> NDArray[np.int8]:
    """The levels in steps at each spread, int8 [25, 16]."""
    values: NDArray[np.int8] = np.rint(SPREADS[:, None] * np.clip(levels, -1, 1)).astype(np.int8)
    return values


def pairs_of(levels: NDArray[np.float32]) -> NDArray[np.uint16]:
    """The two int8 values that a byte stands for at each spread, uint16 [25, 256] as they lie in memory."""
    values = values_of(levels)
    low, high = np.arange(256) % LEVELS, np.arange(256) // LEVELS
    both = np.ascontiguousarray(np.stack([values[:, low], values[:, high]], axis=2))
    return both.view(np.uint16)[:, :, 0]


def train_codebook(samples: NDArray[np.float32], centroids: int = 256, seed: int = 0) -> Codebook:
    """Centroids and levels for vectors like these, float32 [n, dim]; the same samples give the same ones.

    Spherical k-means from centroids that `seed` chooses among the samples; levels are those of the residuals
    of samples that were held out. Fewer than eight samples a centroid give fewer centroids. Lengths do not
    count. ValueError for no samples at all, an odd number of dimensions, NaN and infinities.
    """
    _check(samples)
    units = _units(samples)
    if len(units) == 0 or units.shape[1] % 2:
        raise ValueError(f"residual codes need vectors of an even number of dimensions, not {samples.shape}")
    if not 1 <= centroids <= MOST_CENTROIDS:
        raise ValueError(f"a codebook has from 1 to {MOST_CENTROIDS} centroids, not {centroids}")
    units = units[np.random.default_rng(seed).permutation(len(units))]
    held = min(int(HELD_OUT * len(units)), MOST_HELD_OUT)
    seen = units[held:]
    centres = _kmeans(seen, min(centroids, max(1, len(seen) // 8)))
    return _on_grid(centres, units[:held] if held else seen)


def _kmeans(units: NDArray[np.float32], k: int) -> NDArray[np.float32]:
    """Centroids of unit length from the first `k`; one that loses all its members stays where it was."""
    centres = units[:k]
    for _ in range(ROUNDS):
        nearest = _nearest(units, centres)
        sums = np.zeros((k, units.shape[1]))
        np.add.at(sums, nearest, units)
        lengths = np.linalg.norm(sums, axis=1)
        centres = np.where(
            (lengths > 0)[:, None], sums / np.maximum(lengths, 1e-12)[:, None], centres
        ).astype(np.float32)
    return centres


def _on_grid(centres: NDArray[np.float32], held_out: NDArray[np.float32]) -> Codebook:
    """Centroids in steps so fine that they and usual residuals are within int8 together, and levels."""
    residuals = held_out - centres[_nearest(held_out, centres)]
    largest = np.abs(residuals).max(axis=1, keepdims=True)
    usual = np.quantile(largest, 0.99) / SPREADS[-1]
    steps = np.maximum(np.abs(centres).max(axis=1) / HALF, usual).astype(np.float32)
    levels = _levels(residuals / np.maximum(largest, 1e-12))
    return Codebook(np.rint(centres / steps[:, None]).astype(np.int8), steps, levels)


def _levels(shares: NDArray[np.float32]) -> NDArray[np.float32]:
    """Sixteen numbers of least squared distance to these, by Lloyd's iterations from their quantiles."""
    ordered = np.sort(shares.ravel().astype(np.float64))
    sums = np.append(0.0, np.cumsum(ordered))
    levels = np.quantile(ordered, (np.arange(LEVELS) + 0.5) / LEVELS)
    for _ in range(REFINED):
        inner = np.searchsorted(ordered, (levels[1:] + levels[:-1]) / 2)
        edges = np.concatenate([[0], inner, [len(ordered)]])
        sizes = np.diff(edges)
        levels = np.where(sizes > 0, np.diff(sums[edges]) / np.maximum(sizes, 1), levels)
    return levels.astype(np.float32)


def _nearest(units: NDArray[np.float32], centres: NDArray[np.float32]) -> NDArray[np.int64]:
    """The centroid with the largest dot product, in blocks that bound the memory."""
    blocks = [units[begin : begin + BLOCK] for begin in range(0, len(units), BLOCK)]
    return np.concatenate([(block @ centres.T).argmax(axis=1) for block in blocks])


def _units(samples: NDArray[np.float32]) -> NDArray[np.float32]:
    lengths = np.linalg.norm(samples, axis=1, keepdims=True)
    units: NDArray[np.float32] = samples[lengths[:, 0] > 0] / lengths[lengths[:, 0] > 0]
    return units


def _check(vectors: NDArray[np.float32]) -> None:
    if not np.isfinite(vectors).all():
        raise ValueError("token vectors hold NaN or infinity; they cannot be compared")
