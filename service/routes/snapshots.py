"""Backups of collections, and collections from backups.

Copying is done when the answer comes; a client that does not wait for it finds the backup in the list. A
list needs no collection: it is what one asks after the collection is lost.
"""

import asyncio
from typing import Annotated

from fastapi import APIRouter, Path, Query
from starlette.responses import Response

from indexer.backup import Backup, Backups, Taken, back_up, forget
from indexer.collection import NAME
from indexer.repository import Repository
from indexer.restore import restore
from service.backups import list_view, made_view
from service.errors import (
    ConflictError,
    DamagedSnapshotError,
    NotFoundError,
    StorageFullError,
    UnavailableError,
)
from service.routes.collections import require_allowed, view
from service.schema.collections import CollectionView
from service.schema.snapshots import RestoreRequest, SnapshotList, SnapshotMade, SnapshotRequest
from service.state import Here, Name, json_response, problems
from service.strict_json import StrictRoute

router = APIRouter(prefix="/v1/collections", tags=["snapshots"], route_class=StrictRoute)

SnapshotName = Annotated[str, Path(pattern=f"^{NAME.pattern}$", description="Name of a backup.")]
RepositoryName = Annotated[
    str, Query(min_length=1, max_length=100, description="One of the repositories in /v1/limits.")
]


@router.post(
    "/{name}/snapshots",
    response_model=SnapshotMade,
    status_code=201,
    responses=problems(NotFoundError, ConflictError, StorageFullError, UnavailableError),
    summary="Back up a collection",
)
async def post_snapshot(name: Name, body: SnapshotRequest, here: Here) -> Response:
    """Copy the newest generation: what can be searched now, without what waits to be indexed.

    Files that an earlier backup of the collection has are not copied again.
    """
    collection = here.catalog.get(name)
    taken: Taken = await here.repositories.run(
        body.repository, back_up, here.catalog.root, collection.name, body.name, body.keep
    )
    return json_response(made_view(taken), 201)


@router.get(
    "/{name}/snapshots",
    response_model=SnapshotList,
    responses=problems(UnavailableError),
    summary="List backups of a collection",
)
async def list_snapshots(name: Name, repository: RepositoryName, here: Here) -> Response:
    """The backups in a repository, newest first, whether or not there is such a collection now."""
    found, damaged = await here.repositories.run(repository, _listing, name)
    return json_response(list_view(found, damaged))


@router.delete(
    "/{name}/snapshots/{snapshot}",
    status_code=204,
    response_class=Response,
    responses=problems(NotFoundError, ConflictError, UnavailableError),
    summary="Remove a backup",
)
async def delete_snapshot(
    name: Name, snapshot: SnapshotName, repository: RepositoryName, here: Here
) -> Response:
    """Remove a backup for good, with the files that no other backup of the collection has."""
    await here.repositories.run(repository, forget, here.catalog.root, name, snapshot)
    return Response(status_code=204)


@router.post(
    "/{name}/snapshots/{snapshot}:restore",
    response_model=CollectionView,
    responses=problems(
        NotFoundError, ConflictError, DamagedSnapshotError, StorageFullError, UnavailableError
    ),
    summary="Restore a backup",
)
async def restore_snapshot(name: Name, snapshot: SnapshotName, body: RestoreRequest, here: Here) -> Response:
    """Make a collection of a backup, in place of one of that name if there is one.

    Every file is checked before anything changes. Searches see the collection there was until then, and what
    was written to it since the backup, or waits to be indexed, is gone afterwards.
    """
    backup = await here.repositories.run(body.repository, _find, name, snapshot)
    schema = backup.manifest.schema_
    require_allowed(schema.model_dump(), here.settings)
    await asyncio.to_thread(here.nets.tables.fingerprints, schema)
    into = body.into or name
    await here.repositories.run(body.repository, restore, here.catalog.root, backup, into)
    return json_response(await view(await here.catalog.replaced(into)))


def _listing(repository: Repository, collection: str) -> tuple[list[Backup], dict[str, str]]:
    return Backups(repository, collection).listing()


def _find(repository: Repository, collection: str, name: str) -> Backup:
    return Backups(repository, collection).find(name)
