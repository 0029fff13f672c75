"""Everything the service may answer instead of a result; `error_shapes` says what it looks like.

A `ServiceError` carries a sentence for whoever has to act; its class carries status and code. Errors of the
parts below (filters, log, files) and of the framework become one of these in `as_service_error`, the only
place where an exception meets an HTTP status. A `StageError` may cost a search one input rather than the
answer.
"""

import errno
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from typing_extensions import TypedDict

from indexer.backup import BackupExists, BackupMissing, DamagedBackup
from indexer.collection import CollectionExists, CollectionMissing
from indexer.filters import FilterError
from indexer.queue.contract import LogUnavailable
from indexer.repository import RepositoryError
from indexer.segment.arrays import CorruptFile
from indexer.segment.syntax import QuerySyntaxError
from indexer.workplace import Busy

MOST_FIELD_ERRORS = 100
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
REFUSED = (errno.EIO, errno.EROFS)


class FieldError(TypedDict):
    """What is wrong with one value: `index` in a list of documents or searches, `field` as a dotted path."""

    index: int | None
    field: str
    code: str
    detail: str


class ServiceError(HTTPException):
    """Base of all; an HTTPException, or FastAPI would make a bare 400 of one raised in reading a body."""

    status: ClassVar[int] = 500
    code: str = "internal_error"
    title: ClassVar[str] = "Internal error"
    members: Mapping[str, Any] = {}  # what a problem says beside what all do

    def __init__(
        self,
        detail: str,
        *,
        errors: Sequence[FieldError] = (),
        retry_after: float | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(self.status, detail, dict(headers or {}))
        self.errors = list(errors)
        self.retry_after = retry_after


class MalformedError(ServiceError):
    """The body is not JSON."""

    status, code, title = 400, "malformed_json", "Malformed JSON"


class KeyMissingError(ServiceError):
    """No API key, or a wrong one."""

    status, code, title = 401, "unauthorized", "API key missing or wrong"


class ScopeError(ServiceError):
    """A key that may not do this."""

    status, code, title = 403, "scope_missing", "Scope missing"


class NotFoundError(ServiceError):
    """There is no such thing."""

    status, code, title = 404, "not_found", "Not found"


class ModelError(NotFoundError):
    """A request to a model endpoint names a model that does not do this here."""

    code, title = "model_not_found", "Model not found"


class SlowBodyError(ServiceError):
    """The body did not arrive in time."""

    status, code, title = 408, "body_too_slow", "Request body too slow"


class SlowHeadError(ServiceError):
    """The head of a request did not arrive in time."""

    status, code, title = 408, "head_too_slow", "Request head too slow"


class ConflictError(ServiceError):
    """There is one already, and it is different."""

    status, code, title = 409, "conflict", "Conflict"


class GoneError(ServiceError):
    """A generation that is no longer kept."""

    status, code, title = 410, "generation_gone", "Generation gone"


class TooLargeError(ServiceError):
    """The body exceeds its limit."""

    status, code, title = 413, "body_too_large", "Request body too large"


class MediaTypeError(ServiceError):
    """A body of a kind that is not read here."""

    status, code, title = 415, "unsupported_media_type", "Unsupported media type"


class InvalidError(ServiceError):
    """Well-formed, but not acceptable."""

    status, code, title = 422, "invalid_request", "Invalid request"


class EmptyInputError(InvalidError):
    """There is nothing to encode."""

    status, code, title = 400, "empty_input", "Empty input"


class UnknownTokenError(InvalidError):
    """A token that the model's vocabulary does not have."""

    code, title = "unknown_token", "Unknown token"


class TooLongError(InvalidError):
    """A text, or a question, is longer than the model reads, and was not to be cut.

    It is the one at place `index` or, where that is None, the only question, or all texts together; `said`
    goes on with the sentence.
    """

    code, title = "text_too_long", "Text too long"

    def __init__(self, field: Literal["text", "question"], index: int | None, said: str) -> None:
        together = {"text": "the texts", "question": "the question"}
        sentence = f"{together[field] if index is None else f'{field} {index}'} {said}"
        error = FieldError(index=index, field=field, code=self.code, detail=sentence)
        super().__init__(sentence, errors=[error])
        self.field, self.index = field, index
        self._said = said

    def at(self, index: int) -> "TooLongError":
        """The same of the text or question at another place."""
        return TooLongError(self.field, index, self._said)


class LimitError(InvalidError):
    """More than a limit allows."""

    code, title = "limit_exceeded", "Limit exceeded"

    def __init__(
        self,
        limit: str,
        most: int,
        found: int | str,
        field: str = "",
        index: int | None = None,
        unit: str = "",
    ) -> None:
        place = field or limit if index is None else f"{field} {index}"
        what = f"{place} in {unit}" if unit else place
        sentence = f"{what} is {found}; the limit {limit!r} is {most} (see /v1/limits)"
        error = FieldError(index=index, field=field or limit, code=self.code, detail=sentence)
        super().__init__(sentence, errors=[error])


class ComponentError(InvalidError):
    """A pipeline asks for what the collection does not hold."""

    code, title = "component_missing", "Component missing"


class DamagedSnapshotError(InvalidError):
    """A backup cannot be restored: another may do."""

    code, title = "snapshot_damaged", "Snapshot damaged"


class NotConfiguredError(InvalidError):
    """A request asks for a net that the settings do not name."""

    code, title = "not_configured", "Not configured"


def no_cross_encoder() -> NotConfiguredError:
    """What is said wherever a cross-encoder is asked for and there is none."""
    return NotConfiguredError(
        "this service has no cross-encoder: set WINNOW_CROSS_ENCODER to the name of its weights, or do "
        "without the stage 'cross'"
    )


class ClientGoneError(ServiceError):
    """The client hung up; nobody reads this answer."""

    status, code, title = 499, "client_gone", "Client gone"


class RateError(ServiceError):
    """More requests than a key may make in a time."""

    status, code, title = 429, "rate_exceeded", "Rate exceeded"


class LongHeadError(ServiceError):
    """The head of a request exceeds what is read of one."""

    status, code, title = 431, "head_too_large", "Request head too large"


class UnavailableError(ServiceError):
    """Something the request needs does not work at present."""

    status, code, title = 503, "unavailable", "Unavailable"


class UnreadyError(UnavailableError):
    """The service cannot take requests yet, or no longer; `checks` are those of the probe."""

    code, title = "not_ready", "Not ready"

    def __init__(self, reasons: Sequence[str], checks: Sequence[Mapping[str, Any]]) -> None:
        super().__init__("; ".join(reasons), retry_after=1.0)
        self.members = {"reasons": list(reasons), "checks": list(checks)}


class StorageFullError(ServiceError):
    """The disk is full: nothing was written, reading goes on."""

    status, code, title = 507, "storage_full", "Storage full"


class StorageFailedError(ServiceError):
    """The disk refuses to write, or to read, for another reason."""

    status, code, title = 507, "storage_failed", "Storage failed"


class StageError(ServiceError):
    """A stage could not do its work; fusion goes on without it."""


class BusyError(StageError):
    """A queue is full."""

    status, code, title = 429, "overloaded", "Overloaded"


class EncoderError(StageError):
    """A net is not there."""

    status, code, title = 503, "encoder_unavailable", "Encoder unavailable"


class NetFailedError(EncoderError):
    """A net is there and failed."""

    code, title = "encoder_failed", "Encoder failed"


class DamagedError(StageError):
    """What was asked for lies in files that are not what was written."""

    status, code, title = 503, "index_damaged", "Index damaged"


class DeadlineError(StageError):
    """Out of time."""

    status, code, title = 504, "deadline_exceeded", "Deadline exceeded"


class _FrameworkError(ServiceError):
    """404 for an unknown path, 405 and the like, as Starlette raises them."""

    def __init__(self, error: HTTPException) -> None:
        super().__init__(str(error.detail), headers=error.headers)
        self.status_code = error.status_code
        self.code = {404: "no_such_route", 405: "method_not_allowed"}.get(error.status_code, "http_error")


def as_service_error(error: Exception) -> ServiceError:
    """The answer to any exception; only what nobody foresaw becomes a 500, without its words."""
    match error:
        case ServiceError():
            return error
        case RequestValidationError():
            found = field_errors(error.errors(), error.body)
            return InvalidError(_summary(found), errors=found[:MOST_FIELD_ERRORS])
        case HTTPException():
            return _FrameworkError(error)
        case QuerySyntaxError():
            return InvalidError(f"query: {error}")
        case FilterError():
            return InvalidError(f"filter: {error}")
        case OSError() if error.errno in FULL:
            return StorageFullError("the disk is full: nothing was written; free some space and try again")
        case OSError() if error.errno in REFUSED:
            return StorageFailedError(f"the disk does not do its work: nothing was written; {error.strerror}")
        case LogUnavailable():
            return UnavailableError(f"the operations log does not answer: {error}", retry_after=1.0)
        case RepositoryError():
            return UnavailableError(error.strerror or str(error))
        case CollectionMissing() | BackupMissing():
            return NotFoundError(str(error))
        case CollectionExists() | BackupExists() | Busy():
            return ConflictError(str(error))
        case DamagedBackup():
            return DamagedSnapshotError(str(error))
        case CorruptFile():
            return DamagedError(f"the index is damaged: {error}")
    return ServiceError(
        "something went wrong inside the service; its log has the details under this request_id"
    )


def field_errors(errors: Sequence[Mapping[str, Any]], body: Any) -> list[FieldError]:
    """Pydantic's errors in our words; never the offending values, which may be huge or unprintable."""
    places = [tuple(error["loc"]) for error in errors]
    return [
        _field_error(error, body)
        for error in errors
        if error["type"] != "too_short" or not _has_inner(tuple(error["loc"]), places)
    ]


def _has_inner(place: tuple[Any, ...], places: Sequence[tuple[Any, ...]]) -> bool:
    """A list whose items are wrong counts as empty too, which says nothing new."""
    return any(len(other) > len(place) and other[: len(place)] == place for other in places)


def _field_error(error: Mapping[str, Any], body: Any) -> FieldError:
    place, *path = error["loc"]
    if place == "body":
        path = _path(path, body, keep_last=error["type"] == "missing")
    index = path.pop(0) if path and isinstance(path[0], int) else None
    detail = str(error["msg"]).removeprefix("Value error, ")
    return FieldError(index=index, field=".".join(map(str, path)), code=error["type"], detail=detail)


def _path(location: Sequence[Any], body: Any, *, keep_last: bool) -> list[Any]:
    """Leave out of a location what names a branch of a union rather than a place in the body."""
    path = []
    for number, step in enumerate(location):
        if (isinstance(body, dict) and step in body) or (isinstance(body, list) and isinstance(step, int)):
            path.append(step)
            body = body[step]
        elif keep_last and number == len(location) - 1:
            path.append(step)
    return path


def _summary(errors: Sequence[FieldError]) -> str:
    first = errors[0]
    where = "" if first["index"] is None else f"[{first['index']}]"
    place = f"{where}.{first['field']}".strip(".") or "the body"
    more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
    return f"{place}: {first['detail']}{more}"
