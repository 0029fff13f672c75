"""Limits that live in settings, declared where the field is.

`top_k: Annotated[int, Limit("top_k")]` says it once. `check` walks a parsed request and raises a
`LimitError` naming the limit; `openapi.py` turns the same marks into `maximum`, `maxLength` and `maxItems`.
A Pydantic bound would have to be known at import, and then it could not be a setting.
"""

from collections.abc import Iterator
from functools import cache
from typing import Any, get_args

from pydantic import BaseModel, GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from service.errors import LimitError
from service.settings import Limits

KEY = "x-limit"  # in a JSON schema: which limit applies
SCHEMA = "x-schema"  # in a JSON schema: which one, written by hand, stands for it


class Limit:
    """Names the limit of a number's value, a text's bytes or a list's length."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __get_pydantic_json_schema__(
        self, core_schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        """Mark the schema."""
        return {**handler(core_schema), KEY: self.name}


def whole_numbers(fields: Any) -> Any:
    """Take 10.0 for 10, as JSON Schema does; Pydantic's strict mode would not. For `mode="before"`."""
    if not isinstance(fields, dict):
        return fields
    return {name: whole_number(value) for name, value in fields.items()}


def whole_number(value: Any) -> Any:
    """The integer that a number such as 10.0 is; anything else as it is."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def check(request: BaseModel, limits: Limits) -> None:
    """Raise LimitError for the first field, however deep, that is beyond its limit."""
    for path, limit, size in _sizes(request, ""):
        most: int = getattr(limits, limit)
        if size > most:
            raise LimitError(limit, most, _shown(size), path)


def within(limit: str, value: int, limits: Limits) -> None:
    """Raise LimitError if a number from elsewhere is beyond a limit."""
    most: int = getattr(limits, limit)
    if value > most:
        raise LimitError(limit, most, _shown(value), limit)


def _shown(size: int) -> int | str:
    return size if size < 10**18 else "a number of more than 18 digits"


def _sizes(model: BaseModel, prefix: str) -> Iterator[tuple[str, str, int]]:
    for name, limit in _marks(type(model)).items():
        value = getattr(model, name)
        if limit is not None and value is not None:
            yield prefix + name, limit, _size(value)
        yield from _children(value, f"{prefix}{name}.")


def _children(value: Any, prefix: str) -> Iterator[tuple[str, str, int]]:
    if isinstance(value, BaseModel):
        yield from _sizes(value, prefix)
    elif isinstance(value, tuple | list):
        for at, child in enumerate(value):
            yield from _children(child, f"{prefix}{at}.")
    elif isinstance(value, dict):
        for key, child in value.items():
            yield from _children(child, f"{prefix}{key}.")


@cache
def _marks(model: type[BaseModel]) -> dict[str, str | None]:
    """The limit of every field; a field that may be None has its mark inside of the union."""
    found: dict[str, str | None] = {}
    for name, field in model.model_fields.items():
        marks = list(field.metadata)
        for branch in get_args(field.annotation):
            marks += getattr(branch, "__metadata__", ())
        found[name] = next((mark.name for mark in marks if isinstance(mark, Limit)), None)
    return found


def _size(value: Any) -> int:
    if isinstance(value, int):
        return value
    return len(value.encode() if isinstance(value, str) else value)
