"""Filters: which documents a search, or a deletion, is about.

`{"year": {"gte": 2020}, "lang": ["en", "fr"], "$or": [{…}, {…}], "$not": {…}}`

Every key is a condition and all must hold. A path compares its values with one
operand, with a list (any of), or with an object of `gt gte lt lte exists`; a
document with several values matches when one of them does. Numbers compare as
numbers whether written 1 or 1.0, text by code point, and true is never 1. The
path `_id` is the document's own id. A path without a value matches nothing but
`{"exists": false}` and `$not`.
"""

import json
import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import reduce
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Operand = str | int | float | bool
Mask = NDArray[np.bool_]

MAX_DEPTH = 8
MAX_NODES = 256
MAX_VALUES = 10_000
COMPARISONS = ("gt", "gte", "lt", "lte")


class FilterError(ValueError):
    """A filter that cannot be understood; the message says where and why."""


class Leaves(Protocol):
    """What a filter asks of a segment; every answer is bool[rows]."""

    def any_of(self, path: str, values: tuple[Operand, ...]) -> Mask: ...

    def within(self, path: str, bounds: "Bounds") -> Mask: ...

    def exists(self, path: str) -> Mask: ...


class Filter(ABC):
    """A condition on documents. Equal, and equally hashed, when `canonical()` is the same text."""

    @abstractmethod
    def mask(self, columns: Leaves, rows: int) -> Mask:
        """bool[rows], True where the row's document matches."""

    @abstractmethod
    def canonical(self) -> str:
        """The same text for filters that ask the same in another order; 1 and true differ."""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Filter) and self.canonical() == other.canonical()

    def __hash__(self) -> int:
        return hash(self.canonical())


@dataclass(frozen=True, eq=False)
class AnyOf(Filter):
    """The path has one of the values."""

    path: str
    values: tuple[Operand, ...]

    def mask(self, columns: Leaves, rows: int) -> Mask:
        return columns.any_of(self.path, self.values)

    def canonical(self) -> str:
        return _text(self.path, "in", sorted(set(map(_text, self.values))))


@dataclass(frozen=True)
class Bounds:
    """An interval of numbers or of text; None is unbounded."""

    lower: int | float | str | None = None
    lower_open: bool = False
    upper: int | float | str | None = None
    upper_open: bool = False


@dataclass(frozen=True, eq=False)
class Within(Filter):
    """The path has a value inside the bounds."""

    path: str
    bounds: Bounds

    def mask(self, columns: Leaves, rows: int) -> Mask:
        return columns.within(self.path, self.bounds)

    def canonical(self) -> str:
        b = self.bounds
        return _text(self.path, "within", b.lower, b.lower_open, b.upper, b.upper_open)


@dataclass(frozen=True, eq=False)
class Exists(Filter):
    """The path has a value."""

    path: str

    def mask(self, columns: Leaves, rows: int) -> Mask:
        return columns.exists(self.path)

    def canonical(self) -> str:
        return _text(self.path, "exists")


@dataclass(frozen=True, eq=False)
class Not(Filter):
    """The inner condition does not hold."""

    inner: Filter

    def mask(self, columns: Leaves, rows: int) -> Mask:
        return ~self.inner.mask(columns, rows)

    def canonical(self) -> str:
        return f"!{self.inner.canonical()}"


@dataclass(frozen=True, eq=False)
class And(Filter):
    """Every part holds; of no parts, always."""

    parts: tuple[Filter, ...]

    def mask(self, columns: Leaves, rows: int) -> Mask:
        masks = (part.mask(columns, rows) for part in self.parts)
        return reduce(np.logical_and, masks, np.ones(rows, np.bool_))

    def canonical(self) -> str:
        return f"all({' & '.join(sorted({part.canonical() for part in self.parts}))})"


@dataclass(frozen=True, eq=False)
class Or(Filter):
    """Some part holds; of no parts, never."""

    parts: tuple[Filter, ...]

    def mask(self, columns: Leaves, rows: int) -> Mask:
        masks = (part.mask(columns, rows) for part in self.parts)
        return reduce(np.logical_or, masks, np.zeros(rows, np.bool_))

    def canonical(self) -> str:
        return f"any({' | '.join(sorted({part.canonical() for part in self.parts}))})"


def parse(raw: Any, max_depth: int = MAX_DEPTH, max_nodes: int = MAX_NODES) -> Filter:
    """A filter from its JSON form. FilterError says what is wrong and names the limit that is exceeded.

    `max_depth` counts nested objects, `max_nodes` conditions and combinations.
    """
    return _Parser(max_depth, max_nodes).conjunction(raw, 1)


class _Parser:
    def __init__(self, max_depth: int, max_nodes: int) -> None:
        self._max_depth, self._max_nodes = max_depth, max_nodes
        self._nodes = self._values = 0

    def conjunction(self, raw: Any, depth: int) -> Filter:
        if not isinstance(raw, Mapping):
            raise FilterError(f"a filter is an object such as {{'lang': 'en'}}, not {_shown(raw)}")
        if depth > self._max_depth:
            raise FilterError(f"filters nest at most {self._max_depth} deep")
        parts = tuple(part for key, value in raw.items() for part in self._condition(key, value, depth))
        return parts[0] if len(parts) == 1 else And(parts)

    def _condition(self, key: str, value: Any, depth: int) -> Iterator[Filter]:
        self._count()
        if key == "$not":
            yield Not(self.conjunction(value, depth + 1))
        elif key in ("$and", "$or"):
            yield self._combination(key, value, depth)
        elif key.startswith("$"):
            raise FilterError(f"{key!r} is not known; combine conditions with $and, $or and $not")
        elif isinstance(value, Mapping):
            yield from _comparison(key, value)
        else:
            yield self._any_of(key, value)

    def _combination(self, key: str, value: Any, depth: int) -> Filter:
        if not isinstance(value, list | tuple):
            raise FilterError(f"{key} takes a list of filters, not {_shown(value)}")
        parts = tuple(self.conjunction(part, depth + 1) for part in value)
        return And(parts) if key == "$and" else Or(parts)

    def _any_of(self, path: str, value: Any) -> Filter:
        values = value if isinstance(value, list | tuple) else (value,)
        self._values += len(values)
        if self._values > MAX_VALUES:
            raise FilterError(f"a filter holds at most {MAX_VALUES:,} values")
        for each in values:
            _check_operand(path, each)
        return AnyOf(path, tuple(values))

    def _count(self) -> None:
        self._nodes += 1
        if self._nodes > self._max_nodes:
            raise FilterError(f"a filter has at most {self._max_nodes} nodes")


def _comparison(path: str, raw: Mapping[str, Any]) -> Iterator[Filter]:
    unknown = [key for key in raw if key not in (*COMPARISONS, "exists")]
    if unknown or not raw:
        what = f"{unknown[0]!r} is not a comparison" if unknown else "there is no comparison"
        raise FilterError(f"{path!r}: {what}; use gt, gte, lt, lte or exists")
    if "exists" in raw:
        yield _existence(path, raw["exists"])
    if any(key in raw for key in COMPARISONS):
        yield Within(path, _bounds(path, raw))


def _existence(path: str, wanted: Any) -> Filter:
    if not isinstance(wanted, bool):
        raise FilterError(f"{path!r}: exists takes true or false, not {_shown(wanted)}")
    return Exists(path) if wanted else Not(Exists(path))


def _bounds(path: str, raw: Mapping[str, Any]) -> Bounds:
    for key, other in (("gt", "gte"), ("lt", "lte")):
        if key in raw and other in raw:
            raise FilterError(f"{path!r}: give {key} or {other}, not both")
    given = [raw[key] for key in COMPARISONS if key in raw]
    for operand in given:
        _check_operand(path, operand)
        if isinstance(operand, bool) or isinstance(operand, str) != isinstance(given[0], str):
            raise FilterError(f"{path!r}: bounds are numbers or text, and both of one kind")
    return Bounds(raw.get("gt", raw.get("gte")), "gt" in raw, raw.get("lt", raw.get("lte")), "lt" in raw)


def _check_operand(path: str, operand: Any) -> None:
    if operand is None:
        raise FilterError(f"{path!r}: nothing equals null; use {{'exists': false}}")
    if not isinstance(operand, str | int | float):
        raise FilterError(f"{path!r}: {_shown(operand)} is not text, a number or a boolean")
    if isinstance(operand, float) and not math.isfinite(operand):
        raise FilterError(f"{path!r}: {operand} is not a finite number")


def _text(*parts: Any) -> str:
    return json.dumps(parts, ensure_ascii=False)


def _shown(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 80 else text[:77] + "..."
