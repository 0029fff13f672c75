"""Putting documents in, reading them and taking them out.

A write is acknowledged once it is durable in the operations log (202 and a job); with `wait=searchable` the
answer comes when this service shows it (200), or as 202 when that took too long.
"""

import asyncio
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Query
from starlette.requests import Request
from starlette.responses import Response

from indexer import filters
from indexer.queue.contract import Operation, delete, delete_where
from service import limits
from service.catalog import Collection
from service.errors import DamagedError, NotFoundError, StorageFullError, UnavailableError
from service.guards import unless_gone
from service.intake import Border, Intake, read_json, read_ndjson
from service.jobs import settled, view
from service.limits import Limit
from service.schema.documents import DeleteByIds, DeleteRequest, DocumentView, WriteResponse
from service.state import Here, Name, State, json_response, problems
from service.strict_json import StrictRoute, media_type, require_media_type

router = APIRouter(prefix="/v1/collections/{name}", tags=["documents"], route_class=StrictRoute)

NDJSON = "application/x-ndjson"
DEFAULT_WAIT_MS = 30_000
_DOCUMENT = {"$ref": "#/components/schemas/Document"}
_BODY = {
    "required": True,
    "content": {
        "application/json": {
            "schema": {"oneOf": [_DOCUMENT, {"type": "array", "minItems": 1, "items": _DOCUMENT}]}
        },
        NDJSON: {"schema": {"description": "One document a line, each as in JSON."}},
    },
}
WRITTEN: dict[str, Any] = {
    "response_model": WriteResponse,
    "status_code": 202,
    "responses": {
        200: {"model": WriteResponse, "description": "Searchable, as `wait=searchable` asked"},
        **problems(NotFoundError, StorageFullError, UnavailableError),
    },
}


class Wait:
    """What a write's query string says about waiting."""

    def __init__(
        self,
        here: Here,
        wait: Annotated[
            Literal["searchable"] | None, Query(description="Answer when the change can be searched.")
        ] = None,
        timeout_ms: Annotated[
            Annotated[int, Limit("timeout_ms")] | None,
            Query(ge=1, description="How long to wait before answering 202; by default 30 s."),
        ] = None,
    ) -> None:
        most = here.settings.limits
        milliseconds = min(DEFAULT_WAIT_MS, most.timeout_ms) if timeout_ms is None else timeout_ms
        limits.within("timeout_ms", milliseconds, most)
        self.seconds = milliseconds / 1000 if wait else 0.0


Waiting = Annotated[Wait, Depends()]


@router.post("/documents", **WRITTEN, openapi_extra={"requestBody": _BODY}, summary="Put documents in")
async def put_documents(name: Name, waiting: Waiting, request: Request, here: Here) -> Response:
    """Insert documents, each in place of one of the same id.

    A JSON array or object is taken whole or not at all. NDJSON is taken line by line, and lines that will
    not do are reported in `rejected`.
    """
    collection = here.catalog.get(name)
    border = Border(collection.current.schema, here.settings.limits)
    require_media_type(request, "application/json", NDJSON)
    if media_type(request) == NDJSON:
        intake = await read_ndjson(request.stream(), border)
    else:
        intake = read_json(await request.body(), border)
    return await _written(collection, intake, waiting, request)


@router.get(
    "/documents/{document_id:path}",
    response_model=DocumentView,
    responses=problems(NotFoundError, UnavailableError, DamagedError),
    summary="Read a document",
)
async def get_document(name: Name, document_id: str, here: Here) -> Response:
    """Show a document as it was accepted, once it can be searched."""
    snapshot = here.catalog.get(name).current
    document = await here.workers.run(snapshot.find, document_id)
    if document is None and snapshot.missing:
        raise DamagedError(
            f"document {document_id[:200]!r} is not in the segments that are whole: {snapshot.missing[0]}"
        )
    if document is None:
        raise NotFoundError(
            f"collection {name!r} holds no document {document_id[:200]!r} in generation {snapshot.generation}"
        )
    return json_response(document)


@router.delete("/documents/{document_id:path}", **WRITTEN, summary="Delete a document")
async def delete_document(
    name: Name, document_id: str, waiting: Waiting, request: Request, here: Here
) -> Response:
    """Delete a document, those that still wait to be indexed included. One that is not there stays so."""
    collection = here.catalog.get(name)
    return await _written(collection, Intake([delete(document_id)], []), waiting, request)


@router.post("/documents:delete", **WRITTEN, summary="Delete documents")
async def delete_documents(
    name: Name, body: DeleteRequest, waiting: Waiting, request: Request, here: Here
) -> Response:
    """Delete documents by id, or all that match a filter when the operation's turn comes."""
    limits.check(body, here.settings.limits)
    collection = here.catalog.get(name)
    return await _written(collection, Intake(_deletions(body, here), []), waiting, request)


def _deletions(body: DeleteRequest, here: State) -> list[Operation]:
    if isinstance(body, DeleteByIds):
        return [delete(each) for each in dict.fromkeys(body.ids)]
    filters.parse(body.filter, here.settings.limits.filter_depth, here.settings.limits.filter_nodes)
    return [delete_where(body.filter)]


async def _written(collection: Collection, intake: Intake, waiting: Wait, request: Request) -> Response:
    """Make it durable, wait as long as asked, and say how far it has come."""
    key, position = await asyncio.to_thread(collection.log.append, intake.operations)
    searchable = False
    if waiting.seconds:
        searchable = await unless_gone(request, collection.shows(position, waiting.seconds))
    job = await (settled(collection, key) if searchable else asyncio.to_thread(collection.log.job, key))
    if job is None:
        raise UnavailableError(f"collection {collection.name!r} was dropped while it was written to")
    answer: WriteResponse = {
        "accepted": len(intake.operations),
        "superseded": intake.superseded,
        "rejected": intake.rejected,
        "job": view(collection.name, job),
    }
    return json_response(answer, 200 if searchable else 202, Location=f"/v1/jobs/{answer['job']['id']}")
