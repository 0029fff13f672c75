"""A collection is a directory; its name is the directory's name.

    ROOT/collections/NAME/
        CURRENT  manifest-000042.json  log.sqlite  LOCK
        segments/NAME/  tombstones/  lexical-000042/  tantivy/

Creating and dropping are one rename each, so a reader of the root never sees
half a collection. Names starting with a dot are work in progress and are
ignored. Document ids never become paths.
"""

import os
import re
import secrets
import shutil
import time
from collections.abc import Mapping
from pathlib import Path

from indexer.lock import Lock, Locked
from indexer.segment.durable import fsync_directory
from indexer.segment.manifest import CURRENT, CollectionSchema, Manifest, publish

__all__ = [
    "NAME",
    "CollectionExists",
    "CollectionMissing",
    "CollectionSchema",
    "appear",
    "collection_path",
    "create_collection",
    "drop_collection",
    "list_collections",
    "remove_dropped",
    "sweep_collections",
]

ABANDONED_SECONDS = 24 * 3600

NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")


class CollectionExists(Exception):  # noqa: N818 - it says a state
    """There is a collection of this name already."""


class CollectionMissing(Exception):  # noqa: N818 - it says a state
    """There is no collection of this name."""


def collection_path(root: Path, name: str) -> Path:
    """Directory of a collection, whether or not it exists. ValueError for a name that is not allowed."""
    if not NAME.fullmatch(name):
        raise ValueError(
            f"{name[:80]!r} cannot name a collection: use 1 to 64 of a-z, 0-9, '_' and '-', "
            "starting with a letter or a digit"
        )
    return root / "collections" / name


def create_collection(
    root: Path, name: str, schema: CollectionSchema, fingerprints: Mapping[str, str] | None = None
) -> Path:
    """Make an empty collection, durably, and return its directory.

    `fingerprints` are of what its questions depend on and its passages do not.
    Raises ValueError for a name that is not allowed, CollectionExists when it is taken.
    """
    path = collection_path(root, name)
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.parent / f".new-{name}-{secrets.token_hex(4)}"
    try:
        for part in ("segments", "tombstones"):
            (fresh / part).mkdir(parents=True)
        publish(fresh, Manifest(generation=0, schema_=schema, fingerprints=dict(fingerprints or {})))
        appear(fresh, path)
    except BaseException:
        shutil.rmtree(fresh, ignore_errors=True)
        raise
    return path


def appear(fresh: Path, path: Path) -> None:
    """Give a finished directory, which is on the disk, the name of a collection. CollectionExists."""
    try:
        os.rename(fresh, path)  # noqa: PTH104 - a directory replaces nothing but an empty one
    except OSError as error:
        if path.exists():
            raise CollectionExists(f"there is a collection {path.name!r} already") from error
        raise
    fsync_directory(path.parent)


def list_collections(root: Path) -> list[str]:
    """Names of the collections below `root`, sorted."""
    parent = root / "collections"
    if not parent.is_dir():
        return []
    return sorted(p.name for p in parent.iterdir() if NAME.fullmatch(p.name) and (p / CURRENT).is_file())


def drop_collection(root: Path, name: str) -> None:
    """Remove a collection: gone for every new reader at the rename, its files once its writer let go.

    Raises CollectionMissing when there is none of this name.
    """
    path = collection_path(root, name)
    doomed = path.parent / f".dropped-{name}-{secrets.token_hex(4)}"
    try:
        os.rename(path, doomed)  # noqa: PTH104
    except FileNotFoundError as error:
        raise CollectionMissing(f"there is no collection {name!r}") from error
    fsync_directory(path.parent)
    remove_dropped(root, name)


def remove_dropped(root: Path, name: str) -> bool:
    """Remove the files of dropped collections of a name; False while a writer is still at one of them.

    Such a writer has not noticed, and would write into whatever has the name by then.
    """
    removed = [_removed(doomed) for doomed in (root / "collections").glob(f".dropped-{name}-*")]
    return all(removed)


def _removed(doomed: Path) -> bool:
    try:
        lock = Lock(doomed)
    except Locked:
        return False
    except FileNotFoundError:  # somebody else was faster
        return True
    shutil.rmtree(doomed, ignore_errors=True)
    lock.release()
    return True


def sweep_collections(root: Path) -> None:
    """Remove what a crash left of dropping, and of creating a day ago: another process may be at it now."""
    for path in (root / "collections").glob(".*-*"):
        if path.name.startswith(".dropped-"):
            _removed(path)
        elif time.time() - path.stat().st_mtime > ABANDONED_SECONDS:
            shutil.rmtree(path, ignore_errors=True)
