"""Metadata as typed values: what a filter column holds.

A path may be declared with a type, and then every value must fit it; undeclared
metadata is taken as it comes, one column per (path, type), so that types never
conflict. Lists give several values, nested objects dotted paths, null none.
"""

import math
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

ColumnType = Literal["keyword", "int64", "float64", "bool", "datetime"]
Scalar = str | int | float | bool

INT64 = range(-(2**63), 2**63)
RESERVED = "_id"  # in a filter this path is the document's own id
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def check_metadata(metadata: Mapping[str, Any], declared: Mapping[str, ColumnType]) -> None:
    """Raise ValueError, naming path, value and type, when `metadata` cannot be indexed."""
    for _ in typed(metadata, declared):
        pass


def typed(
    metadata: Mapping[str, Any], declared: Mapping[str, ColumnType]
) -> Iterator[tuple[str, ColumnType, Scalar]]:
    """Every value of `metadata` with its dotted path and type, datetimes as microseconds since 1970 UTC."""
    for path, value in _leaves("", metadata):
        if path.startswith("$") or path == RESERVED:
            raise ValueError(f"metadata cannot be called {path!r}: filters give this name a meaning")
        kind = declared.get(path)
        if kind is None:
            yield path, *_as_it_comes(path, value)
        else:
            yield path, kind, as_type(path, value, kind)


def as_type(path: str, value: Any, kind: ColumnType) -> Scalar:
    """`value` as a declared type. ValueError names path, value and type when it does not fit."""
    fitting = _FITTING[kind]
    if isinstance(value, fitting) and (fitting is bool or not isinstance(value, bool)):
        try:
            return _stored(value, kind)
        except (ValueError, OverflowError):
            pass  # said below, in the same words as any other misfit
    raise ValueError(f"{path!r} is declared {kind}, which {_shown(value)} is not")


def microseconds(text: str) -> int:
    """An ISO 8601 date or time as microseconds since 1970 UTC; without a zone it is UTC."""
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return (moment - _EPOCH) // timedelta(microseconds=1)


_FITTING: dict[ColumnType, Any] = {
    "keyword": str,
    "int64": int,
    "float64": (int, float),
    "bool": bool,
    "datetime": str,
}


def _stored(value: Any, kind: ColumnType) -> Scalar:
    if kind == "datetime":
        return microseconds(value)
    if kind == "float64":
        return _finite(float(value))
    if kind == "int64" and value not in INT64:
        raise OverflowError
    scalar: Scalar = value
    return scalar


def _as_it_comes(path: str, value: Any) -> tuple[ColumnType, Scalar]:
    if isinstance(value, str):
        return "keyword", value
    if isinstance(value, bool):
        return "bool", value
    if isinstance(value, int) and value in INT64:
        return "int64", value
    if isinstance(value, int | float):
        try:
            return "float64", _finite(float(value))
        except (ValueError, OverflowError):
            raise ValueError(f"{path!r}: {_shown(value)} is not a number that fits 64 bits") from None
    raise ValueError(f"{path!r}: {_shown(value)} is not text, a number, a boolean, a list or an object")


def _leaves(path: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for key, child in value.items():
            yield from _leaves(f"{path}.{key}" if path else str(key), child)
    elif isinstance(value, list | tuple):
        for child in value:
            yield from _leaves(path, child)
    elif value is not None:
        yield path, value


def _finite(number: float) -> float:
    if not math.isfinite(number):
        raise ValueError
    return number


def _shown(value: Any) -> str:
    """A value as an error quotes it; numbers by size, since str() of a huge one is slow and refused."""
    if isinstance(value, int) and not isinstance(value, bool) and value not in INT64:
        return f"an integer of {value.bit_length()} bits"
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
