"""Token vectors as bytes: int8 with a scale, or a centroid's number and residuals of half a byte.

Either way a vector is decoded to int8 codes and one float32 scale, so a similarity is an integer product
times two scales. The scale is the vector's own: a token's vector is nearly the same at int8, and that of a
pooled one stays shorter than 1 (see `models.pooling`).

Residual codes follow Santhanam et al., "ColBERTv2", 2021: the nearest centroid by dot product, and of what is
left each dimension's bucket, one set of buckets for all dimensions. What differs: centroids and what buckets
stand for are rounded to one grid, so that decoding is an addition of int8 numbers, and the length is restored
by the scale.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from indexer.kernels.maxsim import pack_residuals

LARGEST = 127
BUCKETS = 16
ROUNDS = 4
"""Iterations of k-means."""

HELD_OUT, MOST_HELD_OUT = 0.05, 50_000
"""Share and number of the samples that buckets are made from and centroids are not."""

MOST_CENTROIDS = 1 << 16
BLOCK = 8192


class Codebook(NamedTuple):
    """What residual codes stand for; all in multiples of `step`, which is float32.

    centroids int8 [c, dim]; cutoffs float32 [15], ascending borders of the buckets; weights int8 [16].
    """

    centroids: NDArray[np.int8]
    cutoffs: NDArray[np.float32]
    weights: NDArray[np.int8]
    step: np.float32

    def same(self, other: "Codebook") -> bool:
        """Whether both are equal bit for bit."""
        return bool(
            np.array_equal(self.centroids, other.centroids)
            and np.array_equal(self.cutoffs, other.cutoffs)
            and np.array_equal(self.weights, other.weights)
            and self.step == other.step
        )


class Codes(NamedTuple):
    """Vectors as int8: the i-th is `codes[i] * scales[i]`. codes int8 [n, dim], scales float32 [n]."""

    codes: NDArray[np.int8]
    scales: NDArray[np.float32]


class Packed(NamedTuple):
    """Residual codes: nearest uint16 [n], packed uint8 [n, dim / 2], scales float32 [n]."""

    nearest: NDArray[np.uint16]
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
    nearest = products.argmax(axis=1).astype(np.uint16)
    packed = np.zeros((len(vectors), vectors.shape[1] // 2), np.uint8)
    scales = np.empty(len(vectors), np.float32)
    pack_residuals(
        np.array(vectors, np.float32),
        nearest,
        np.array(centroids),
        codebook.step,
        np.array(codebook.cutoffs),
        np.array(codebook.weights),
        packed,
        scales,
    )
    return Packed(nearest, packed, scales)


def pairs_of(weights: NDArray[np.int8]) -> NDArray[np.uint16]:
    """The two int8 values every byte of residual codes stands for, uint16 [256] as they lie in memory."""
    low, high = np.arange(256) % BUCKETS, np.arange(256) // BUCKETS
    return np.ascontiguousarray(np.stack([weights[low], weights[high]], axis=1)).view(np.uint16)[:, 0]


def train_codebook(samples: NDArray[np.float32], centroids: int = 256, seed: int = 0) -> Codebook:
    """Centroids and buckets for vectors like these, float32 [n, dim]; the same samples give the same ones.

    Spherical k-means from centroids that `seed` chooses among the samples; buckets are quantiles of the
    residuals of samples that were held out. Fewer than eight samples a centroid give fewer centroids. Lengths
    do not count. ValueError for no samples at all, an odd number of dimensions, NaN and infinities.
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
    """Buckets of the residuals, and everything rounded to the finest grid on which no sum leaves int8."""
    residuals = held_out - centres[_nearest(held_out, centres)]
    cutoffs = np.quantile(residuals, np.arange(1, BUCKETS) / BUCKETS)
    weights = np.quantile(residuals, (np.arange(BUCKETS) + 0.5) / BUCKETS)
    step = np.float32((np.abs(centres).max() + np.abs(weights).max()) / (LARGEST - 1))
    return Codebook(
        np.rint(centres / step).astype(np.int8),
        (cutoffs / step).astype(np.float32),
        np.rint(weights / step).astype(np.int8),
        step,
    )


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
