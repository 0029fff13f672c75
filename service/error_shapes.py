"""What an error looks like on the wire: RFC 9457 `application/problem+json`, or what a vendor's clients read.

Which of them is decided by the path alone, since an error may come from before any route, as that of a body
that is too large does.
"""

import logging
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Any, Literal, NamedTuple

import orjson
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Scope
from typing_extensions import TypedDict

from service.errors import FieldError, NetFailedError, ServiceError, as_service_error
from service.log_lines import fields

log = logging.getLogger(__name__)


class Problem(TypedDict):
    """An error as RFC 9457 has it; `code` is for programs, `detail` for people."""

    type: str
    title: str
    status: int
    detail: str
    code: str
    errors: list[FieldError]
    request_id: str
    retry_after_ms: int | None


class JinaError(TypedDict):
    """An error as Jina has it."""

    detail: str


class CohereError(TypedDict):
    """An error as Cohere has it."""

    message: str


TeiErrorType = Literal[
    "Validation", "Tokenizer", "Empty", "Overloaded", "Unhealthy", "Backend", "Unauthorized"
]


class TeiError(TypedDict):
    """An error as Text Embeddings Inference has it."""

    error: str
    error_type: TeiErrorType


class OpenAIDetail(TypedDict):
    """What OpenAI says of an error; `param` is the field that is to blame."""

    message: str
    type: str
    param: str | None
    code: str | None


class OpenAIError(TypedDict):
    """An error as OpenAI has it."""

    error: OpenAIDetail


class Wire(NamedTuple):
    """How a vendor answers instead of a result: a body's shape, and which statuses are not ours.

    `statuses` has those by our code or, for all other codes, by our status.
    """

    shape: type
    body: Callable[[ServiceError], Any]
    statuses: Mapping[int | str, int]

    def status(self, status: int, code: str = "") -> int:
        """What stands for one of our statuses, with this code."""
        return self.statuses.get(code, self.statuses.get(status, status))


def _jina(error: ServiceError) -> JinaError:
    return JinaError(detail=error.detail)


def _cohere(error: ServiceError) -> CohereError:
    return CohereError(message=error.detail)


_TEI_TYPES: Mapping[str, TeiErrorType] = {
    "empty_input": "Empty",
    "unknown_token": "Tokenizer",
    "overloaded": "Overloaded",
    "encoder_unavailable": "Unhealthy",
    "unavailable": "Unhealthy",
    "unauthorized": "Unauthorized",
    "scope_missing": "Unauthorized",
    "rate_exceeded": "Overloaded",
}


def _tei(error: ServiceError) -> TeiError:
    kind = _TEI_TYPES.get(error.code, "Backend" if error.status_code >= 500 else "Validation")
    return TeiError(error=error.detail, error_type=kind)


def _openai(error: ServiceError) -> OpenAIError:
    field = error.errors[0]["field"] if error.errors else ""
    kind = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}.get(
        error.status_code
    )
    kind = kind or ("server_error" if error.status_code >= 500 else "invalid_request_error")
    return OpenAIError(
        error=OpenAIDetail(message=error.detail, type=kind, param=field or None, code=error.code)
    )


_OPENAI = Wire(OpenAIError, _openai, {422: 400})
_TEI = Wire(TeiError, _tei, {500: 424, NetFailedError.code: 424})

WIRES: Mapping[str, Wire] = {
    "/v1/rerank": Wire(JinaError, _jina, {}),
    "/v2/rerank": Wire(CohereError, _cohere, {422: 400}),
    "/rerank": _TEI,
    "/embed": _TEI,
    "/embed_sparse": _TEI,
    "/info": _TEI,
    "/v1/embeddings": _OPENAI,
    "/v1/models": _OPENAI,
    "/score": _OPENAI,
}
"""Paths that answer errors as a vendor does; all others answer problems."""


def problem(error: ServiceError, request_id: str) -> Problem:
    """An error as RFC 9457 has it."""
    return Problem(
        type=f"urn:winnow:problem:{error.code}",
        title=error.title if error.status_code == error.status else HTTPStatus(error.status_code).phrase,
        status=error.status_code,
        detail=error.detail,
        code=error.code,
        errors=error.errors,
        request_id=request_id,
        retry_after_ms=None if error.retry_after is None else max(1, round(error.retry_after * 1000)),
    )


def error_response(error: ServiceError, path: str, request_id: str) -> Response:
    """An error as clients of this path read it. `Retry-After` is in whole seconds, rounded up: HTTP's way."""
    headers = {"X-Request-Id": request_id, **(error.headers or {})}
    if error.retry_after is not None:
        headers["Retry-After"] = str(max(1, -int(-error.retry_after // 1)))
    wire = WIRES.get(path)
    if wire is None:
        body: Any = {**problem(error, request_id), **error.members}
        return Response(orjson.dumps(body), error.status_code, headers, media_type="application/problem+json")
    status = wire.status(error.status_code, error.code)
    return Response(orjson.dumps(wire.body(error)), status, headers, media_type="application/json")


def refusal(error: ServiceError, scope: Scope) -> Response:
    """The same for a request that no route has seen."""
    return error_response(error, scope["path"], scope.get("state", {}).get("request_id", ""))


async def answer(request: Request, error: Exception) -> Response:
    """The exception handler of the whole application."""
    found = as_service_error(error)
    if found.status_code == 500:
        request_id = request.scope.get("state", {}).get("request_id", "")
        log.error("a request failed", exc_info=error, extra=fields(request_id=request_id))
    return refusal(found, request.scope)
