"""JSON as RFC 8259 has it and nothing beside: what stands between a request's bytes and its schema.

Python's own parser takes NaN, duplicate keys, lone surrogates and nesting until it breaks; each of these
would be stored, answered with a 500 or both. jiter refuses them. What is well-formed but holds a value that
no document may hold (not finite, half a surrogate pair) is answered 422, what is no JSON 400.

`StrictRoute` is FastAPI's own way to a custom request, so every schema stays in the OpenAPI document.
"""

import json
import math
import re
from collections.abc import Callable, Coroutine
from typing import Any

import jiter
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute
from starlette.requests import Request
from starlette.responses import Response

from service.errors import InvalidError, MalformedError, MediaTypeError

# Only these can become infinite: an exponent of three digits, or a mantissa so long that two are enough.
_MAYBE_HUGE = re.compile(rb"[eE]\+?\d{3}|\d{200}")
_MAYBE_REFUSED_VALUE = re.compile(rb"NaN|Infinity|\\u[dD][89a-fA-F]")


def parse(raw: bytes) -> Any:
    """A JSON text as Python values. MalformedError if it is none, InvalidError for values we cannot keep."""
    try:
        value = jiter.from_json(raw, allow_inf_nan=False, catch_duplicate_keys=True)
    except ValueError as error:
        if _MAYBE_REFUSED_VALUE.search(raw) and _lenient_parser_takes(raw):
            raise InvalidError(
                f"this holds a number that is not finite or half of a surrogate pair: {error}"
            ) from error
        raise MalformedError(f"this is not valid JSON: {error}") from error
    if _MAYBE_HUGE.search(raw) and not _all_finite(value):
        raise InvalidError("this holds a number that does not fit 64 bits: numbers must be finite")
    return value


def _lenient_parser_takes(raw: bytes) -> bool:
    try:
        json.loads(raw)
    except (ValueError, RecursionError):
        return False
    return True


def _all_finite(value: Any) -> bool:
    """Recursion is safe: jiter has bounded the depth."""
    if isinstance(value, float):
        return math.isfinite(value)
    if isinstance(value, list):
        return all(map(_all_finite, value))
    if isinstance(value, dict):
        return all(map(_all_finite, value.values()))
    return True


class StrictRequest(Request):
    """A request whose JSON is read strictly."""

    async def json(self) -> Any:
        """Parse the body once."""
        if not hasattr(self, "_json"):
            self._json = parse(await self.body())
        return self._json


class StrictRoute(APIRoute):
    """A route that reads JSON strictly, no other kind of body, and no parameter that it does not know."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Wrap FastAPI's handler."""
        handle = super().get_route_handler()
        known = _query_parameters(self.dependant)

        async def strict(request: Request) -> Response:
            for name in request.query_params.keys() - known:
                takes = ", ".join(sorted(known)) or "none"
                raise InvalidError(f"there is no query parameter {name[:80]!r}; this route knows {takes}")
            if self.body_field is not None:
                require_media_type(request, "application/json")
            return await handle(StrictRequest(request.scope, request.receive))

        return strict


def _query_parameters(dependant: Dependant) -> set[str]:
    """Names of the parameters of a route and of all it depends on."""
    inner = [_query_parameters(each) for each in dependant.dependencies]
    return {field.alias for field in dependant.query_params}.union(*inner)


def require_media_type(request: Request, *accepted: str) -> None:
    """MediaTypeError for a body of another kind; none at all is for the schema to judge."""
    if has_body(request) and media_type(request) not in accepted:
        given = media_type(request)[:80] or "missing"
        raise MediaTypeError(f"Content-Type is {given}; this route reads {' and '.join(accepted)}")


def media_type(request: Request) -> str:
    """The Content-Type without its parameters, in lower case."""
    return request.headers.get("content-type", "").split(";")[0].strip().lower()


def has_body(request: Request) -> bool:
    """Whether the headers announce a body."""
    return "transfer-encoding" in request.headers or request.headers.get("content-length", "0") != "0"
