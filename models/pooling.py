"""Which token vectors of a text become one, and the one they become.

Many tokens of a passage say nearly the same, so half of its vectors can go at little loss. Labels say for
every token which vector stands for it: they are what an explanation needs, and any grouping, also one by
whole words, ends in the same `pool`. A mean is shorter than its members, so the words of a mixed cluster
would be met less well than those of a pure one whatever is asked: `pool` makes it a unit vector again. (On
cosqa that is .015 nDCG@10 of MaxSim alone, on vaswani .005, on time -.004.)

Pure functions over float32 [n, dim] vectors of unit length; the same input gives the same labels.
"""

import numpy as np
from numpy.typing import NDArray
from scipy.cluster.hierarchy import fcluster, linkage  # type: ignore[import-untyped]

ROUNDS = 4
"""Lloyd iterations: with so few points a cluster these change little later."""


def pool(vectors: NDArray[np.float32], labels: NDArray[np.integer]) -> NDArray[np.float32]:
    """One unit vector a label, float32 [clusters, dim], in the order of the labels' first appearance.

    Labels may be any integers. The mean of vectors that cancel out stays 0.
    """
    averages = means(vectors, numbering(labels))
    lengths = np.linalg.norm(averages, axis=1, keepdims=True)
    units: NDArray[np.float32] = (averages / np.where(lengths > 0, lengths, 1)).astype(np.float32)
    return units


def means(vectors: NDArray[np.float32], labels: NDArray[np.int32]) -> NDArray[np.float32]:
    """The mean of every cluster, float32 [clusters, dim], not of unit length; labels leave out no number."""
    order = np.argsort(labels, kind="stable")
    sizes = np.bincount(labels)
    starts = np.cumsum(sizes) - sizes
    if len(sizes) == 0:
        return np.empty((0, vectors.shape[1]), np.float32)
    sums = np.add.reduceat(vectors[order], starts, axis=0, dtype=np.float32)
    averages: NDArray[np.float32] = (sums / sizes[:, None]).astype(np.float32)
    return averages


def hierarchical(vectors: NDArray[np.float32], factor: int, protected: int = 1) -> NDArray[np.int32]:
    """Labels int32 [n] of Ward clusters: of the n - protected last rows one `factor`-th, but one at least.

    The first `protected` rows stay by themselves. Ward's criterion is applied to cosine distances in
    condensed form, which PyLate does too; the ColBERT library's clusters differ since it passes the square
    matrix, whose rows are then taken for points. After Clavié et al., "Reducing the Footprint of Multi-Vector
    Retrieval with Minimal Performance Impact via Token Pooling", 2024.
    """
    if factor < 1 or protected < 0:
        raise ValueError(f"pooling takes factor >= 1 and protected >= 0, not {factor} and {protected}")
    kept, rest = min(protected, len(vectors)), vectors[protected:]
    if factor == 1 or len(rest) < 2:
        return np.arange(len(vectors), dtype=np.int32)
    distances = (1 - rest @ rest.T)[np.triu_indices(len(rest), 1)].astype(np.float64)
    tree = linkage(np.maximum(distances, 0), "ward")
    found = fcluster(tree, max(len(rest) // factor, 1), "maxclust")
    return np.concatenate([np.arange(kept, dtype=np.int32), kept + numbering(found)]).astype(np.int32)


def clusters(vectors: NDArray[np.float32], k: int, seed: int = 0) -> NDArray[np.int32]:
    """Labels int32 [n] of at most `k` clusters by k-means; n <= k vectors stay by themselves.

    The inference side of Veneroso et al., "CRISP", 2025. It begins at `k` vectors that `seed` chooses and
    makes a few Lloyd iterations; equal distances go to the first. A cluster that loses all its members is
    left out.
    """
    if k < 1:
        raise ValueError(f"a text keeps at least one vector, not k={k}")
    if len(vectors) <= k:
        return np.arange(len(vectors), dtype=np.int32)
    first = np.sort(np.random.default_rng(seed).choice(len(vectors), k, replace=False))
    labels = _nearest(vectors, vectors[first])
    for _ in range(ROUNDS):
        moved = _nearest(vectors, means(vectors, labels))
        if np.array_equal(moved, labels):
            break
        labels = moved
    return labels


def numbering(labels: NDArray[np.integer]) -> NDArray[np.int32]:
    """The same grouping with labels 0, 1, 2, … in order of first appearance, int32 [n]."""
    _, first, inverse = np.unique(labels, return_index=True, return_inverse=True)
    rank = np.empty(len(first), np.int32)
    rank[np.argsort(first)] = np.arange(len(first), dtype=np.int32)
    return rank[inverse]


def _nearest(vectors: NDArray[np.float32], centres: NDArray[np.float32]) -> NDArray[np.int32]:
    """The closest centre of each vector, by Euclidean distance; numbered anew."""
    return numbering((vectors @ centres.T - (centres * centres).sum(1) / 2).argmax(axis=1))
