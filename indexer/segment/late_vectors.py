"""How token vectors lie in a file, and how those of some passages are copied out of it as int8 and scales.

Two ways, by `Int8` and `Residual4` (see `codec`), that a reader need not tell apart.
"""

import threading
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from indexer.kernels.maxsim import gather, gather_packed
from indexer.segment.arrays import Arrays
from indexer.segment.codec import Codebook, pairs_of


class Int8:
    """Vectors that are stored as they are multiplied."""

    def __init__(self, arrays: Arrays) -> None:
        self._codes, self._scales = arrays["code"], arrays["scale"]
        self.dim: int = self._codes.shape[1]

    def gather(
        self,
        starts: NDArray[np.int64],
        rows: NDArray[np.int64],
        codes: NDArray[np.int8],
        scales: NDArray[np.float32],
    ) -> None:
        """Copy the vectors of some rows, which begin at `starts`, to `codes` and `scales`."""
        gather(self._codes.reshape(-1), self._scales, starts, rows, codes.reshape(-1), scales)


class Residual4:
    """Vectors that are decoded when they are copied."""

    def __init__(self, arrays: Arrays) -> None:
        self._packed, self._scales = arrays["packed"], arrays["scale"]
        self._nearest, self._spreads = arrays["nearest"], arrays["spread"]
        self._centroids: NDArray[np.int8] = arrays["centroid"]
        self.dim: int = self._centroids.shape[1]
        self._pairs = np.stack([pairs_of(book.levels) for book in read_books(arrays)])
        sizes = np.diff(arrays["book_start"])
        self._book_of = np.repeat(np.arange(len(sizes)), sizes).astype(np.uint16)

    def gather(
        self,
        starts: NDArray[np.int64],
        rows: NDArray[np.int64],
        codes: NDArray[np.int8],
        scales: NDArray[np.float32],
    ) -> None:
        """As `Int8.gather`."""
        gather_packed(
            self._packed,
            self._scales,
            starts,
            rows,
            self._nearest,
            self._spreads,
            self._centroids,
            self._book_of,
            self._pairs,
            codes,
            codes.view(np.uint16),
            scales,
        )


class Scratch(threading.local):
    """Room for the vectors that a thread multiplies; it grows to what the largest block needs."""

    def __init__(self) -> None:
        self._codes, self._scales = np.empty(0, np.int8), np.empty(0, np.float32)

    def room(self, vectors: int, dim: int) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
        """Codes [vectors, dim] and scales [vectors], with anything in them."""
        if len(self._codes) < vectors * dim:
            self._codes = np.empty(vectors * dim, np.int8)
        if len(self._scales) < vectors:
            self._scales = np.empty(vectors, np.float32)
        return self._codes[: vectors * dim].reshape(vectors, dim), self._scales[:vectors]


SCRATCH = Scratch()


def book_arrays(books: Sequence[Codebook]) -> Arrays:
    """Codebooks as a file keeps them; none are no arrays."""
    if not books:
        return {}
    return {
        "centroid": np.concatenate([book.centroids for book in books]),
        "book_start": np.cumsum([0, *(len(book.centroids) for book in books)]),
        "step": np.concatenate([book.steps for book in books]),
        "level": np.stack([book.levels for book in books]),
    }


def read_books(arrays: Arrays) -> list[Codebook]:
    """The codebooks of a file."""
    stretches = pairwise(arrays["book_start"].tolist())
    return [
        Codebook(arrays["centroid"][begin:end], arrays["step"][begin:end], levels)
        for (begin, end), levels in zip(stretches, arrays["level"], strict=True)
    ]
