"""The OpenAPI document: FastAPI's own, completed with what only settings and we know.

Marks left by `Limit` become bounds, errors become `application/problem+json`, and what is parsed by hand
(NDJSON lines, filters) gets its schema here. Clients are generated from the document, and the fuzzer
believes it.
"""

from collections.abc import Iterator
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import TypeAdapter

from indexer.document import Document
from indexer.segment.analyzer import LANGUAGES
from service.error_shapes import WIRES, Problem
from service.errors import (
    BusyError,
    InvalidError,
    KeyMissingError,
    MalformedError,
    MediaTypeError,
    RateError,
    ScopeError,
    ServiceError,
    SlowBodyError,
    TooLargeError,
)
from service.gate import gated
from service.limits import KEY, SCHEMA
from service.scopes import OPEN
from service.settings import Limits, Settings

PROBLEM_JSON = "application/problem+json"
REFERENCE = "#/components/schemas/{model}"
BOUNDS = {
    "integer": "maximum",
    "number": "maximum",
    "string": "maxLength",
    "array": "maxItems",
    "object": "maxProperties",
}
BODY_ERRORS: list[type[ServiceError]] = [MalformedError, SlowBodyError, TooLargeError, MediaTypeError]

_SCALAR = {"type": ["string", "number", "boolean"]}
_SCALARS = {"type": "array", "items": _SCALAR}
_FILTERS = {"type": "array", "items": {"$ref": "#/components/schemas/Filter"}}
_BOUND = {"type": ["string", "number"]}
COMPARISON = {
    "title": "Comparison",
    "type": "object",
    "description": "What a value must be; all that is given must hold.",
    "properties": {**dict.fromkeys(("gt", "gte", "lt", "lte"), _BOUND), "exists": {"type": "boolean"}},
    "additionalProperties": False,
    "minProperties": 1,
}
FILTER = {
    "title": "Filter",
    "type": "object",
    "description": "Conditions on metadata, all of which must hold. A path has a value, one of a list of "
    "values, or an object of comparisons; `$and`, `$or` and `$not` combine. `_id` is the document's own id.",
    "properties": {"$and": _FILTERS, "$or": _FILTERS, "$not": {"$ref": "#/components/schemas/Filter"}},
    "propertyNames": {"pattern": r"^([^$]|\$(and|or|not)$)"},
    "additionalProperties": {"anyOf": [_SCALAR, _SCALARS, {"$ref": "#/components/schemas/Comparison"}]},
    "examples": [{"lang": ["en", "fr"], "year": {"gte": 2020}}],
}


def document(app: FastAPI, settings: Settings) -> dict[str, Any]:
    """The OpenAPI document of an application with these limits and names.

    Defaults that are settings are not in it: a generated client would send them, to other services too.
    """
    openapi = get_openapi(
        title=app.title, version=app.version, description=app.description, routes=app.routes
    )
    schemas = openapi["components"]["schemas"]
    schemas.update(_by_hand())
    for unused in ("HTTPValidationError", "ValidationError"):
        schemas.pop(unused, None)
    of_collection = schemas["CollectionRequest"]["properties"]
    for field, known in {**settings.names(), "language": list(LANGUAGES)}.items():
        _of_strings(of_collection[field])["enum"] = known
    for field, default in settings.default_encoders().items():
        del of_collection[field]["default"]
        of_collection[field]["description"] = f"By default the service's, {default} here."
    for node in _objects(openapi):
        _bound(node, settings.limits)
        _refer(node)
    for path, operations in openapi["paths"].items():
        for operation in operations.values():
            _complete_errors(operation, path)
    return openapi


def _of_strings(schema: dict[str, Any]) -> dict[str, Any]:
    """The schema itself or, of a field that may be null, its first branch."""
    found: dict[str, Any] = schema.get("anyOf", [schema])[0]
    return found


def _by_hand() -> dict[str, Any]:
    found: dict[str, Any] = {"Filter": FILTER, "Comparison": COMPARISON}
    for model in {Document, Problem, *(wire.shape for wire in WIRES.values())}:
        schema: dict[str, Any] = TypeAdapter(model).json_schema(ref_template=REFERENCE)
        found |= schema.pop("$defs", {}) | {model.__name__: schema}
    return found


def _objects(node: Any) -> Iterator[dict[str, Any]]:
    """Every object of a JSON tree."""
    if isinstance(node, dict):
        yield node
        node = list(node.values())
    if isinstance(node, list):
        for child in node:
            yield from _objects(child)


def _bound(schema: dict[str, Any], limits: Limits) -> None:
    limit = schema.pop(KEY, None)
    if limit is not None:
        schema[BOUNDS[schema["type"]]] = getattr(limits, limit)
        schema["description"] = f"{schema.get('description', '')} Limit: `{limit}`.".strip()


def _refer(schema: dict[str, Any]) -> None:
    name = schema.pop(SCHEMA, None)
    if name is not None:
        schema["$ref"] = REFERENCE.format(model=name)


def _complete_errors(operation: dict[str, Any], path: str) -> None:
    """Add the errors that guards and parsing give, and say what all of them look like."""
    responses = operation["responses"]
    given: list[type[ServiceError]] = [ServiceError]
    if path not in OPEN:
        given.append(RateError)
    if gated(path):
        given.append(BusyError)
    if operation.get("security"):
        given += [KeyMissingError, ScopeError]
    if "requestBody" in operation:
        given += BODY_ERRORS
    if "requestBody" in operation or "parameters" in operation:
        given.append(InvalidError)
    for error in given:
        responses.setdefault(str(error.status), {})["description"] = error.title
    errors = {int(status): responses.pop(status) for status in list(responses) if status >= "400"}
    wire = WIRES.get(path)
    kind, shape = ("application/json", wire.shape) if wire else (PROBLEM_JSON, Problem)
    content = {kind: {"schema": {"$ref": REFERENCE.format(model=shape.__name__)}}}
    for status, response in errors.items():
        ours = wire.status(status) if wire else status
        responses.setdefault(str(ours), {"description": response["description"], "content": content})
