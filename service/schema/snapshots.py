"""Backups."""

from typing import Annotated, Any

from pydantic import Field
from typing_extensions import TypedDict

from indexer.collection import NAME
from service.schema.common import Request

Repository = Annotated[str, Field(min_length=1, max_length=100)]


class SnapshotRequest(Request):
    """Where to keep a backup, and how many."""

    repository: Repository = Field(description="One of those in /v1/limits.")
    name: Annotated[str, Field(pattern=f"^{NAME.pattern}$")] | None = Field(
        None, description="Of the backup; by default the time."
    )
    keep: int | None = Field(
        None, ge=1, description="Remove all backups of the collection but so many, the newest; else none."
    )


class RestoreRequest(Request):
    """Where the backup is, and what to make of it."""

    repository: Repository = Field(description="One of those in /v1/limits.")
    into: Annotated[str, Field(pattern=f"^{NAME.pattern}$")] | None = Field(
        None, description="Name of the collection to make or replace; by default the one that was backed up."
    )


class SnapshotView(TypedDict):
    """A backup of one generation. `bytes` counts files that it shares with other backups too."""

    name: str
    collection: str
    created: float
    generation: int
    documents: int
    passages: int
    bytes: int
    schema: dict[str, Any]


class SnapshotMade(SnapshotView):
    """A new backup, what had to be copied for it, and the backups that were removed for being too old."""

    copied_bytes: int
    removed: list[str]


class DamagedSnapshot(TypedDict):
    """A backup that cannot be read, and why."""

    name: str
    detail: str


class SnapshotList(TypedDict):
    """Backups of a collection, newest first."""

    snapshots: list[SnapshotView]
    damaged: list[DamagedSnapshot]
