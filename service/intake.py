"""Documents on their way in: from a body to operations for the log.

A JSON body is taken whole or not at all, and every error names index and field. NDJSON is judged line by
line. Of documents with the same id in one request the last counts; the others are reported. Whatever passes
here can be indexed: the size of a document and the types of its declared metadata are checked before
anything is written.
"""

from collections.abc import AsyncIterable, AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from fastapi.exceptions import RequestValidationError
from pydantic import TypeAdapter, ValidationError

from indexer.document import Document
from indexer.queue.contract import Operation, upsert
from indexer.segment.manifest import CollectionSchema
from indexer.segment.values import check_metadata
from service.errors import (
    MOST_FIELD_ERRORS,
    FieldError,
    InvalidError,
    LimitError,
    ServiceError,
    as_service_error,
)
from service.schema.documents import Documents, Rejected, Superseded
from service.settings import Limits
from service.strict_json import parse

_READER: TypeAdapter[Document | list[Document]] = TypeAdapter(Documents)
_LINE: TypeAdapter[Document] = TypeAdapter(Document)


@dataclass(frozen=True)
class Border:
    """What a document must satisfy to enter a collection."""

    schema: CollectionSchema
    limits: Limits

    def operation(self, document: Document) -> Operation:
        """The document as an operation. InvalidError with one FieldError."""
        operation = upsert(document)
        size = len(operation.payload)
        if size > self.limits.document_bytes:
            raise LimitError("document_bytes", self.limits.document_bytes, size, "the document in bytes")
        try:
            check_metadata(document.metadata, self.schema.columns)
        except ValueError as error:
            where = FieldError(index=None, field="metadata", code="metadata", detail=str(error))
            raise InvalidError(str(error), errors=[where]) from error
        return operation

    def room_for(self, number: int) -> None:
        """LimitError if these are too many documents for one request."""
        if number > self.limits.documents:
            raise LimitError("documents", self.limits.documents, number, "the number of documents")


@dataclass(frozen=True)
class Intake:
    """What one request brought: operations for the log, and what will not go there."""

    operations: list[Operation]
    superseded: list[Superseded]
    rejected: list[Rejected] = field(default_factory=list)


def read_json(raw: bytes, border: Border) -> Intake:
    """One document or an array of them. InvalidError, if any of them will not do, lists what is wrong."""
    value = parse(raw)
    if isinstance(value, list):
        border.room_for(len(value))
    try:
        read = _READER.validate_python(value)
    except ValidationError as error:
        raise RequestValidationError(_in_body(error), body=value) from None
    numbered = list(enumerate(read if isinstance(read, list) else [read]))
    operations: dict[int, Operation] = {}
    errors: list[FieldError] = []
    for index, document in numbered:
        try:
            operations[index] = border.operation(document)
        except InvalidError as error:
            errors += [FieldError(**{**each, "index": index}) for each in error.errors]
    if errors:
        first = f"[{errors[0]['index']}]: {errors[0]['detail']}"
        raise InvalidError(first, errors=errors[:MOST_FIELD_ERRORS])
    return _last_wins([(index, document.id, operations[index]) for index, document in numbered], [])


async def read_ndjson(body: AsyncIterable[bytes], border: Border) -> Intake:
    """One document a line; empty lines are skipped. LimitError if there are too many."""
    taken: list[tuple[int, str, Operation]] = []
    rejected: list[Rejected] = []
    number = 0
    async for line in _lines(body):
        number += 1
        if not line.strip():
            continue
        border.room_for(len(taken) + len(rejected) + 1)
        try:
            document = _LINE.validate_python(parse(line))
            taken.append((number, document.id, border.operation(document)))
        except (ServiceError, ValidationError) as error:
            rejected.append(_rejected(number, error))
    return _last_wins(taken, rejected)


async def _lines(chunks: AsyncIterable[bytes]) -> AsyncIterator[bytes]:
    """Lines without their ends; the last one may lack it."""
    rest = b""
    async for chunk in chunks:
        *whole, rest = (rest + chunk).split(b"\n")
        for line in whole:
            yield line
    yield rest


def _last_wins(taken: Sequence[tuple[int, str, Operation]], rejected: list[Rejected]) -> Intake:
    last = {name: number for number, name, _ in taken}
    return Intake(
        [operation for number, name, operation in taken if last[name] == number],
        [Superseded(index=number, id=name) for number, name, _ in taken if last[name] != number],
        rejected,
    )


def _rejected(line: int, error: ServiceError | ValidationError) -> Rejected:
    if isinstance(error, ValidationError):
        found = as_service_error(RequestValidationError(_in_body(error)))
    else:
        found = error
    return Rejected(line=line, code=found.code, detail=found.detail)


def _in_body(error: ValidationError) -> list[dict[str, Any]]:
    return [
        {**each, "loc": ("body", *each["loc"])}
        for each in error.errors(include_input=False, include_url=False)
    ]
