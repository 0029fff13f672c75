"""Vectors of passages, as bfloat16 in an unsigned 16-bit array or as 8-bit integers with a scale each.

bfloat16 is half the bytes of float32 at a cosine change of about 2e-4, and widening is a shift, so a scan is
bound by memory; 8 bits are half of that again at about 4e-4. The question stays float32. Search is exact:
every allowed row is scored, in blocks if the caller wants to look at its deadline in between. A score is
summed in one fixed order, so it does not depend on block or segment.

Row i has vector i, or, where neighbouring passages were coalesced, vector `vector_of_row[i]`; a vector that
neighbours share is scored once. Rows stay passages: each has its own span of text, whatever it shares.
"""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from indexer.kernels.dense import dot_rows, largest_square, top_rows
from indexer.segment.arrays import Arrays, open_arrays, write_arrays

Precision = Literal["bfloat16", "int8"]
Codes = NDArray[np.uint16] | NDArray[np.int8]

LARGEST = 127  # of 8-bit codes; -128 is not used, so that a vector and its opposite have opposite codes


class Stored(NamedTuple):
    """Vectors as they are scored: codes [vectors, dim], and the scale of each where codes are integers."""

    codes: Codes
    scales: NDArray[np.float32]

    def take(self, vectors: NDArray[np.int64] | NDArray[np.bool_]) -> "Stored":
        """Some of them."""
        return Stored(self.codes[vectors], self.scales[vectors] if len(self.scales) else self.scales)

    def as_float(self) -> NDArray[np.float32]:
        """What the codes stand for."""
        if self.codes.dtype == np.uint16:
            return (self.codes.astype(np.uint32) << 16).view(np.float32)
        return self.codes.astype(np.float32) * self.scales[:, None]


def write_dense(
    path: Path,
    vectors: NDArray[np.float32],
    precision: Precision = "bfloat16",
    vector_of_row: NDArray[np.uint32] | None = None,
) -> None:
    """Write float32 [vectors, dim] in this precision. ValueError for NaN and infinities.

    `vector_of_row` [rows] says which vector each row has, ascending and leaving out none (as
    `coalesce` gives it); without it there is one for each row.
    """
    _write(path, encoded(vectors, precision), vector_of_row)


class Dense:
    """Reader of a segment's vectors: `rows` passages, `vectors` vectors of `dim` components."""

    def __init__(self, path: Path) -> None:
        arrays = open_arrays(path)
        self.stored = Stored(arrays["vectors"], arrays.get("scales", _NO_SCALES))
        self.vector_of_row: NDArray[np.uint32] = arrays.get("vector_of_row", _ITS_OWN)
        self.vectors, self.dim = self.stored.codes.shape
        self.rows = len(self.vector_of_row) if self.coalesced else self.vectors

    @property
    def coalesced(self) -> bool:
        """Whether rows may share a vector."""
        return len(self.vector_of_row) > 0

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
        rows, scores = top_rows(*self.stored, self.vector_of_row, self._query(query), k, mask, begin, last)
        return rows, scores

    def scores(self, query: NDArray[np.float32], rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Dot products of some rows, in the order given."""
        scores: NDArray[np.float32] = dot_rows(
            *self.stored, self.vector_of_row, self._query(query), np.array(rows, np.int64)
        )
        return scores

    def rows_as_float(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """The vectors of some rows as they are scored, float32 [n, dim], in the order given."""
        return self.stored.take(self._vectors_of(rows)).as_float()

    @cached_property
    def longest(self) -> float:
        """The norm of the longest vector, which no dot product with a question of length 1 exceeds.

        In float64, from what is stored; 0 where there is no vector. The first call reads them all.
        """
        return float(np.sqrt(largest_square(*self.stored)))

    def _vectors_of(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        return self.vector_of_row[rows].astype(np.int64) if self.coalesced else rows

    def _query(self, query: NDArray[np.float32]) -> NDArray[np.float32]:
        if query.shape != (self.dim,):
            raise ValueError(f"a query vector of shape {query.shape} for passages of {self.dim} dimensions")
        return np.array(query, np.float32)  # a copy is writable, and so of the one type that is compiled


def merge_dense(path: Path, parts: Sequence[tuple[Dense, NDArray[np.bool_]]]) -> None:
    """Write the kept rows of several files in order, bit for bit.

    Rows that shared a vector still do; a vector that no kept row has is left out. ValueError where files
    differ in precision, which those of one collection do not.
    """
    if len({dense.stored.codes.dtype for dense, _ in parts}) > 1:
        raise ValueError(f"{path.name}: vectors of different precisions cannot be merged")
    if not any(dense.coalesced for dense, _ in parts):
        _write(path, _joined([dense.stored.take(keep) for dense, keep in parts]), None)
        return
    kept, rows, number = [], [], 0
    for dense, keep in parts:
        vectors, rank = np.unique(dense._vectors_of(np.flatnonzero(keep)), return_inverse=True)
        kept.append(dense.stored.take(vectors))
        rows.append((rank + number).astype(np.uint32))
        number += len(vectors)
    _write(path, _joined(kept), np.concatenate(rows))


def encoded(vectors: NDArray[np.float32], precision: Precision) -> Stored:
    """Vectors as they are stored. ValueError for NaN and infinities."""
    if precision == "bfloat16":
        return Stored(to_bfloat16(vectors), _NO_SCALES)
    return to_int8(vectors)


def to_bfloat16(vectors: NDArray[np.float32]) -> NDArray[np.uint16]:
    """The upper 16 bits of each float32, rounded to nearest, ties to even."""
    _check_finite(vectors)
    bits = np.ascontiguousarray(vectors, np.float32).view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)


def to_int8(vectors: NDArray[np.float32]) -> Stored:
    """Multiples of each vector's scale, its largest component / 127, rounded to nearest, ties to even."""
    _check_finite(vectors)
    scales = (np.abs(vectors).max(1, initial=0) / np.float32(LARGEST)).astype(np.float32)
    steps = np.where(scales > 0, scales, np.float32(np.inf))  # a vector of zeros has codes of zero
    codes = np.clip(np.rint(vectors / steps[:, None]), -LARGEST, LARGEST).astype(np.int8)
    return Stored(codes, scales)


def _check_finite(vectors: NDArray[np.float32]) -> None:
    if not np.isfinite(vectors).all():
        raise ValueError("vectors hold NaN or infinity; they cannot be ranked")


def _joined(parts: Sequence[Stored]) -> Stored:
    codes = np.concatenate([part.codes for part in parts])
    return Stored(codes, np.concatenate([part.scales for part in parts]))


def _write(path: Path, stored: Stored, vector_of_row: NDArray[np.uint32] | None) -> None:
    """Arrays that say nothing are left out: without them the file is as the first version wrote it."""
    arrays: Arrays = {"vectors": stored.codes}
    if stored.codes.dtype == np.int8:
        arrays["scales"] = stored.scales
    if vector_of_row is not None:
        arrays["vector_of_row"] = vector_of_row.astype(np.uint32)
    write_arrays(path, arrays)


# The kernels read an empty mask as "every row", and these as "its own vector" and "no scale".
_EVERY = np.empty(0, np.bool_)
_ITS_OWN = np.empty(0, np.uint32)
_NO_SCALES = np.empty(0, np.float32)
