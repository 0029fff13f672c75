"""Making, showing and dropping collections."""

import asyncio
from collections.abc import Mapping
from typing import Annotated, Any

from fastapi import APIRouter, Body
from starlette.responses import Response

from indexer.collection import CollectionExists, CollectionMissing, CollectionSchema
from service.catalog import Collection
from service.errors import ConflictError, InvalidError, NotFoundError, StorageFullError, UnavailableError
from service.schema.collections import CollectionList, CollectionRequest, CollectionView, SegmentView
from service.settings import Settings
from service.state import Here, Name, json_response, problems
from service.strict_json import StrictRoute

router = APIRouter(prefix="/v1/collections", tags=["collections"], route_class=StrictRoute)

Schema = Annotated[CollectionRequest, Body(default_factory=CollectionRequest)]


@router.get("", response_model=CollectionList, summary="List collections")
async def list_collections(here: Here) -> Response:
    """All collections, by name."""
    return json_response({"collections": [await view(collection) for collection in here.catalog]})


@router.put(
    "/{name}",
    response_model=CollectionView,
    status_code=201,
    responses={
        200: {"model": CollectionView, "description": "There already, with the same schema"},
        **problems(ConflictError, StorageFullError, UnavailableError),
    },
    summary="Make a collection",
)
async def create_collection(name: Name, here: Here, body: Schema) -> Response:
    """Make an empty collection. Repeating the request changes nothing; another schema is a conflict."""
    schema = _schema(body, here.settings)
    fingerprints = await asyncio.to_thread(here.nets.tables.fingerprints, schema)
    try:
        collection, status = await here.catalog.create(name, schema, fingerprints), 201
    except CollectionExists:
        await here.catalog.refresh()
        collection, status = here.catalog.get(name), 200
        _require_same(collection, schema)
    return json_response(await view(collection), status)


@router.get(
    "/{name}",
    response_model=CollectionView,
    responses=problems(NotFoundError, UnavailableError),
    summary="Show a collection",
)
async def get_collection(name: Name, here: Here) -> Response:
    """Schema, counts of what can be searched, and how many operations wait."""
    return json_response(await view(here.catalog.get(name)))


@router.delete(
    "/{name}",
    status_code=204,
    response_class=Response,
    responses=problems(NotFoundError),
    summary="Drop a collection",
)
async def delete_collection(name: Name, here: Here) -> Response:
    """Remove a collection and all its documents, at once and for good."""
    try:
        await here.catalog.drop(name)
    except CollectionMissing as error:
        raise NotFoundError(str(error)) from error
    return Response(status_code=204)


def _schema(body: CollectionRequest, settings: Settings) -> CollectionSchema:
    given = {**settings.default_encoders(), **body.model_dump(exclude_unset=True)}
    require_allowed(given, settings)
    return CollectionSchema(**given)


def require_allowed(given: Mapping[str, Any], settings: Settings) -> None:
    """InvalidError if fields of a schema name nets that the settings do not."""
    for field in ("encoder", "sparse_encoder", "late_encoder", "in_context_model", "sparse_quality"):
        name, allowed = given.get(field), settings.names()[field]
        if name is not None and name not in allowed:
            raise InvalidError(
                f"{field} {name[:100]!r} is not one of {', '.join(allowed)}: whoever runs the service can "
                "allow it in WINNOW_ENCODERS, since loading weights may download or read anything"
            )


def _require_same(collection: Collection, schema: CollectionSchema) -> None:
    current = collection.current.schema
    different = [
        name for name in type(schema).model_fields if getattr(schema, name) != getattr(current, name)
    ]
    if different:
        raise ConflictError(
            f"there is a collection {collection.name!r} already, and its {', '.join(different)} "
            "cannot be changed: drop it first, or make another"
        )


async def view(collection: Collection) -> CollectionView:
    """A collection as it is now."""
    snapshot = collection.current
    queued = await asyncio.to_thread(collection.behind)
    segments: list[SegmentView] = [
        {
            "name": part.entry.name,
            "rows": part.entry.rows,
            "dead_rows": part.entry.dead_rows,
            "pruned_rows": part.entry.pruned_rows,
            "documents": part.entry.documents,
            "bytes": sum(file.size for file in part.entry.files.values()),
        }
        for part in snapshot.parts
    ]
    return {
        "name": collection.name,
        "schema": snapshot.schema.model_dump(mode="json"),
        "generation": snapshot.generation,
        "documents": snapshot.statistics.documents,
        "passages": snapshot.statistics.passages,
        "queued": queued,
        "segments": segments,
    }
