"""Backups as clients see them, over HTTP and on the command line."""

from collections.abc import Mapping, Sequence

from indexer.backup import Backup, Taken
from service.schema.snapshots import SnapshotList, SnapshotMade, SnapshotView


def view(backup: Backup) -> SnapshotView:
    """A backup without the names of its files."""
    manifest = backup.manifest
    return {
        "name": backup.name,
        "collection": backup.collection,
        "created": backup.created,
        "generation": manifest.generation,
        "documents": manifest.statistics.documents,
        "passages": manifest.statistics.passages,
        "bytes": backup.size(),
        "schema": manifest.schema_.model_dump(mode="json"),
    }


def made_view(taken: Taken) -> SnapshotMade:
    """A backup that was just made."""
    return {**view(taken.backup), "copied_bytes": taken.copied, "removed": taken.removed}


def list_view(backups: Sequence[Backup], damaged: Mapping[str, str]) -> SnapshotList:
    """A listing of `indexer.backup.Backups`."""
    return {
        "snapshots": [view(backup) for backup in backups],
        "damaged": [{"name": name, "detail": detail} for name, detail in damaged.items()],
    }
