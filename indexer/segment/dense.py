"""One vector per passage, as bfloat16 in an unsigned 16-bit array.

Half the bytes of float32 at a cosine change of about 1e-5, and widening is a
shift, so a scan is bound by memory. Search is exact: every allowed row is
scored, in blocks if the caller wants to look at its deadline in between. A
score is summed in one fixed order, so it does not depend on block or segment.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from indexer.kernels.dense import dot_rows, top_rows
from indexer.segment.arrays import open_arrays, write_arrays


def write_dense(path: Path, vectors: NDArray[np.float32]) -> None:
    """Write float32 [rows, dim], rounded to the nearest bfloat16. ValueError for NaN and infinities."""
    write_arrays(path, {"vectors": to_bfloat16(vectors)})


class Dense:
    """Reader of a segment's vectors: `rows` of `dim`."""

    def __init__(self, path: Path) -> None:
        self.vectors: NDArray[np.uint16] = open_arrays(path)["vectors"]
        self.rows, self.dim = self.vectors.shape

    def search(
        self,
        query: NDArray[np.float32],
        k: int,
        allowed: NDArray[np.bool_] | None = None,
        begin: int = 0,
        end: int | None = None,
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """The k allowed rows of [begin, end) with the largest dot products, and these.

        Best first, equal scores by row. Fewer than k when fewer rows are allowed.
        """
        last = self.rows if end is None else min(end, self.rows)
        mask = _EVERY if allowed is None else allowed
        rows, scores = top_rows(self.vectors, self._query(query), k, mask, begin, last)
        return rows, scores

    def scores(self, query: NDArray[np.float32], rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Dot products of some rows, in the order given."""
        scores: NDArray[np.float32] = dot_rows(self.vectors, self._query(query), np.array(rows, np.int64))
        return scores

    def rows_as_float(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """The vectors of some rows as they are scored, float32 [n, dim], in the order given."""
        return (self.vectors[rows].astype(np.uint32) << 16).view(np.float32)

    def _query(self, query: NDArray[np.float32]) -> NDArray[np.float32]:
        if query.shape != (self.dim,):
            raise ValueError(f"a query vector of shape {query.shape} for passages of {self.dim} dimensions")
        return np.array(query, np.float32)  # a copy is writable, and so of the one type that is compiled


def merge_dense(path: Path, parts: Sequence[tuple[Dense, NDArray[np.bool_]]]) -> None:
    """Write the kept rows of several files in order, bit for bit."""
    write_arrays(path, {"vectors": np.concatenate([dense.vectors[keep] for dense, keep in parts])})


def to_bfloat16(vectors: NDArray[np.float32]) -> NDArray[np.uint16]:
    """The upper 16 bits of each float32, rounded to nearest, ties to even."""
    if not np.isfinite(vectors).all():
        raise ValueError("vectors hold NaN or infinity; they cannot be ranked")
    bits = np.ascontiguousarray(vectors, np.float32).view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)


_EVERY = np.empty(0, np.bool_)  # the kernel reads an empty mask as "every row"
