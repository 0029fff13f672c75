"""Metadata for filters: one column per (dotted path, type).

A column is its values in ascending order, each with the document it belongs
to, so that equality and ranges are two binary searches and documents with
several values need nothing special. Text is kept as ordinals into its distinct
strings, sorted by code point. Values belong to documents; answers are per row.
"""

import math
import sys
from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from indexer.filters import Bounds, Mask, Operand
from indexer.segment.arrays import Arrays, open_arrays, write_arrays
from indexer.segment.values import INT64, RESERVED, ColumnType, microseconds, typed

Find = Callable[[Iterable[str]], NDArray[np.int64]]

_DTYPES: dict[str, Any] = {"int64": np.int64, "float64": np.float64, "bool": np.bool_, "datetime": np.int64}


@dataclass(frozen=True)
class Column:
    """Ascending `values` and the documents they belong to; for text, ordinals of `strings`."""

    values: NDArray[Any]
    documents: NDArray[np.uint32]
    strings: "Strings | None" = None


class Strings(Sequence[str]):
    """Distinct strings in ascending order, decoded one at a time."""

    def __init__(self, offsets: NDArray[np.uint64], stored: NDArray[np.uint8]) -> None:
        self.offsets, self.bytes = offsets, stored

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, index: Any) -> Any:
        begin, end = self.offsets[index : index + 2].tolist()
        return self.bytes[begin:end].tobytes().decode()


def write_columns(
    path: Path,
    metadata: Sequence[Mapping[str, Any]],
    document_of_row: NDArray[np.uint32],
    declared: Mapping[str, ColumnType],
) -> None:
    """Write the columns of a segment from each document's metadata.

    ValueError when a value does not fit (see `values.check_metadata`, which is for the border).
    """
    found: dict[tuple[str, str], tuple[list[Any], list[int]]] = defaultdict(lambda: ([], []))
    for number, one in enumerate(metadata):
        for dotted, kind, value in typed(one, declared):
            values, documents = found[kind, dotted]
            values.append(value)
            documents.append(number)
    _write(
        path, {key: _column(key[0], *lists) for key, lists in found.items()}, document_of_row, len(metadata)
    )


class Columns:
    """Reader of a segment's columns; answers a filter's conditions as bool[rows].

    `find` looks up documents by id and so answers the path `_id`.
    """

    def __init__(self, path: Path, find: Find) -> None:
        arrays = open_arrays(path)
        self._find = find
        self._document_of_row: NDArray[np.uint32] = arrays["document_of_row"]
        self.rows, self.documents = len(self._document_of_row), int(arrays["documents"][0])
        self._columns = _columns(arrays)

    def any_of(self, path: str, values: tuple[Operand, ...]) -> Mask:
        """Rows whose document has one of the values."""
        if path == RESERVED:
            numbers = self._find(value for value in values if isinstance(value, str))
            return self._rows(numbers[numbers >= 0])
        return self._rows(
            *(part for value in values for part in self._slices(path, Bounds(value, False, value)))
        )

    def within(self, path: str, bounds: Bounds) -> Mask:
        """Rows whose document has a value inside the bounds."""
        return self._rows(*self._slices(path, bounds))

    def exists(self, path: str) -> Mask:
        """Rows whose document has a value of any type."""
        if path == RESERVED:
            return np.ones(self.rows, np.bool_)
        return self._rows(*(column.documents for (_, p), column in self._columns.items() if p == path))

    def _slices(self, path: str, bounds: Bounds) -> Iterator[NDArray[np.uint32]]:
        for kind in _comparable(bounds):
            column = self._columns.get((kind, path))
            if column is not None:
                yield _slice(kind, column, bounds)

    def _rows(self, *documents: NDArray[Any]) -> Mask:
        mask = np.zeros(self.documents, np.bool_)
        for numbers in documents:
            mask[numbers] = True
        return mask[self._document_of_row]


def merge_columns(path: Path, parts: Sequence[tuple[Columns, Mask]]) -> None:
    """Write the columns of the kept rows of several segments, in order."""
    found: dict[tuple[str, str], tuple[list[Any], list[int]]] = defaultdict(lambda: ([], []))
    rows, documents = [], 0
    for columns, keep in parts:
        kept, rank = np.unique(columns._document_of_row[keep], return_inverse=True)
        number = np.full(columns.documents, -1, np.int64)
        number[kept] = np.arange(documents, documents + len(kept))
        rows.append((rank + documents).astype(np.uint32))
        documents += len(kept)
        for key, column in columns._columns.items():
            _take(column, number, *found[key])
    _write(
        path,
        {key: _column(key[0], *lists) for key, lists in found.items() if lists[0]},
        np.concatenate(rows),
        documents,
    )


def _take(column: Column, number: NDArray[np.int64], values: list[Any], documents: list[int]) -> None:
    """Append a column's values whose documents are kept, renumbered."""
    renumbered = number[column.documents]
    here = renumbered >= 0
    kept = column.values[here].tolist()
    values += kept if column.strings is None else [column.strings[ordinal] for ordinal in kept]
    documents += renumbered[here].tolist()


def _column(kind: str, values: list[Any], documents: list[int]) -> Column:
    owners = np.array(documents, np.uint32)
    if kind != "keyword":
        numbers = np.array(values, _DTYPES[kind])
        order = np.lexsort((owners, numbers))
        return Column(numbers[order], owners[order])
    distinct = sorted(set(values))
    ordinal = {string: i for i, string in enumerate(distinct)}
    ordinals = np.fromiter((ordinal[value] for value in values), np.uint32, len(values))
    order = np.lexsort((owners, ordinals))
    return Column(ordinals[order], owners[order], _strings(distinct))


def _strings(distinct: list[str]) -> Strings:
    encoded = [string.encode() for string in distinct]
    offsets = np.zeros(len(encoded) + 1, np.uint64)
    np.cumsum([len(e) for e in encoded], out=offsets[1:])
    return Strings(offsets, np.frombuffer(b"".join(encoded), np.uint8))


def _write(
    path: Path,
    columns: Mapping[tuple[str, str], Column],
    document_of_row: NDArray[np.uint32],
    documents: int,
) -> None:
    """Names of arrays are PART:TYPE:PATH; a path may hold any character."""
    arrays: Arrays = {
        "document_of_row": np.asarray(document_of_row, np.uint32),
        "documents": np.array([documents], np.int64),
    }
    for (kind, dotted), column in sorted(columns.items()):
        arrays[f"value:{kind}:{dotted}"] = column.values
        arrays[f"document:{kind}:{dotted}"] = column.documents
        if column.strings is not None:
            arrays[f"offset:{kind}:{dotted}"] = column.strings.offsets
            arrays[f"bytes:{kind}:{dotted}"] = column.strings.bytes
    write_arrays(path, arrays)


def _columns(arrays: Arrays) -> dict[tuple[str, str], Column]:
    columns = {}
    for name in arrays:
        part, _, key = name.partition(":")
        if part == "value":
            kind, _, dotted = key.partition(":")
            strings = Strings(arrays[f"offset:{key}"], arrays[f"bytes:{key}"]) if kind == "keyword" else None
            columns[kind, dotted] = Column(arrays[name], arrays[f"document:{key}"], strings)
    return columns


def _comparable(bounds: Bounds) -> tuple[str, ...]:
    """Types of column that a bound can be compared with; a boolean is not a number."""
    operand = bounds.lower if bounds.lower is not None else bounds.upper
    if isinstance(operand, bool):
        return ("bool",)
    return ("keyword", "datetime") if isinstance(operand, str) else ("int64", "float64")


def _slice(kind: str, column: Column, bounds: Bounds) -> NDArray[np.uint32]:
    """The documents of the values inside the bounds."""
    inside = _in_time(bounds) if kind == "datetime" else bounds
    if inside is None:
        return column.documents[:0]
    begin, end = 0, len(column.values)
    if inside.lower is not None:
        begin = _place(kind, column, inside.lower, after=inside.lower_open)
    if inside.upper is not None:
        end = _place(kind, column, inside.upper, after=not inside.upper_open)
    return column.documents[begin : max(begin, end)]


def _in_time(bounds: Bounds) -> Bounds | None:
    """Bounds in microseconds; None when they are not times, which no time compares with."""
    try:
        lower, upper = (None if b is None else microseconds(str(b)) for b in (bounds.lower, bounds.upper))
    except ValueError:
        return None
    return replace(bounds, lower=lower, upper=upper)


def _place(kind: str, column: Column, operand: Any, after: bool) -> int:
    """How many values are below the operand or, with `after`, not above it."""
    if column.strings is not None:
        ordinal = (bisect_right if after else bisect_left)(column.strings, operand)
        return int(np.searchsorted(column.values, ordinal))
    if kind in ("int64", "float64"):
        near = _nearest(kind, operand)
        # No value equals an operand that the type cannot hold; the side follows from its neighbour's.
        after = after if near == operand else near < operand
        operand = near
    return int(np.searchsorted(column.values, operand, side="right" if after else "left"))


def _nearest(kind: str, operand: int | float) -> int | float:
    """A number of the column's type next to the operand, or the operand itself."""
    if kind == "int64":
        return max(INT64[0], min(INT64[-1], math.floor(operand)))
    return float(max(-sys.float_info.max, min(sys.float_info.max, operand)))
