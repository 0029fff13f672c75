"""Sparse vectors side by side: rows of (term, weight), as learned sparse encoders give and the index stores.

Compressed sparse rows: `offsets[i]:offsets[i + 1]` are the entries of row `i`. Terms ascend within a row and
every weight is above zero, so equal sets of vectors are equal arrays, and whoever merges rows need not sort.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class Csr:
    """Rows of a sparse matrix: `offsets` int64 [rows + 1], `terms` int32 [nnz], `weights` float32 [nnz]."""

    offsets: NDArray[np.int64]
    terms: NDArray[np.int32]
    weights: NDArray[np.float32]

    def __len__(self) -> int:
        """The number of rows."""
        return len(self.offsets) - 1

    def __iter__(self) -> Iterator[tuple[NDArray[np.int32], NDArray[np.float32]]]:
        """The rows one after another, as `row` gives them."""
        return (self.row(number) for number in range(len(self)))

    def row(self, number: int) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
        """Terms (ascending) and weights of one row: views."""
        entries = slice(self.offsets[number], self.offsets[number + 1])
        return self.terms[entries], self.weights[entries]

    def take(self, rows: Sequence[int] | NDArray[np.integer]) -> "Csr":
        """These rows in this order; a row may come twice."""
        chosen = np.asarray(rows, np.int64)
        lengths = np.diff(self.offsets)[chosen]
        offsets = _offsets(lengths)
        entries = np.arange(offsets[-1]) + np.repeat(self.offsets[chosen] - offsets[:-1], lengths)
        return Csr(offsets, self.terms[entries], self.weights[entries])


def from_dense(weights: NDArray[np.float32]) -> Csr:
    """The entries above zero of a float32 [rows, vocabulary] matrix."""
    entries = np.flatnonzero(weights > 0)
    rows, terms = np.divmod(entries, max(1, weights.shape[1]))
    counts = np.bincount(rows, minlength=len(weights))
    return Csr(_offsets(counts), terms.astype(np.int32), weights.ravel()[entries].astype(np.float32))


def concatenate(parts: Sequence[Csr]) -> Csr:
    """The rows of all parts, one part after another; no parts give no rows."""
    lengths = [np.diff(part.offsets) for part in parts]
    return Csr(
        _offsets(np.concatenate([np.empty(0, np.int64), *lengths])),
        np.concatenate([np.empty(0, np.int32), *(part.terms for part in parts)]),
        np.concatenate([np.empty(0, np.float32), *(part.weights for part in parts)]),
    )


def prune(vectors: Csr, most: int | None, least: float) -> Csr:
    """Keep the `most` largest weights of each row (None: all) that are not below `least`.

    Of equal weights the one with the lower term stays: an index must be reproducible.
    """
    if most is not None and most < 0:
        raise ValueError(f"a vector keeps at least no term, not {most}")
    rows = np.repeat(np.arange(len(vectors)), np.diff(vectors.offsets))
    kept = vectors.weights >= least
    if most is not None:
        order = np.lexsort((-vectors.weights, rows))  # stable, so of equal weights the lower term comes first
        rank = np.arange(len(order)) - vectors.offsets[:-1][rows]
        kept[order[rank >= most]] = False
    counts = np.bincount(rows[kept], minlength=len(vectors))
    return Csr(_offsets(counts), vectors.terms[kept], vectors.weights[kept])


def unit(vectors: Csr) -> Csr:
    """The same rows divided by their Euclidean length."""
    lengths = np.diff(vectors.offsets)
    rows = np.repeat(np.arange(len(vectors)), lengths)
    squares = np.bincount(rows, vectors.weights.astype(np.float64) ** 2, minlength=len(vectors))
    weights = (vectors.weights / np.sqrt(squares)[rows]).astype(np.float32)
    return Csr(vectors.offsets, vectors.terms, weights)


def _offsets(lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
