"""From a backup to a collection that can be searched, in place of another if there is one.

All of it is fetched, checked and opened aside; then one rename shows it. Searches see the old collection
until then. Its writer must let go before, since it writes by names, and so would write into the new one. A
collection that was restored begins a log of its own, at position 0, and a generation that nobody has seen.
"""

import errno
import os
import time
from pathlib import Path

from indexer.backup import Backup, Backups, DamagedBackup, Progress, checked
from indexer.collection import CollectionExists, appear, collection_path, remove_dropped
from indexer.lock import POLL_SECONDS, Locked, handed_over
from indexer.part import Part
from indexer.repository import Repository
from indexer.segment.arrays import CorruptFile
from indexer.segment.durable import exchange, fsync_directory, fsync_tree
from indexer.segment.manifest import LexicalEntry, Manifest, newest_generation, publish
from indexer.workplace import Busy, workplace

WRITER_SECONDS = 600.0
"""How long a writer may take to finish what it is at."""


def restore(
    repository: Repository,
    root: Path,
    backup: Backup,
    into: str,
    progress: Progress = lambda done, total: None,
    *,
    writer_seconds: float = WRITER_SECONDS,
) -> None:
    """Make a backup the collection `into` below `root`; what had that name is gone afterwards.

    DamagedBackup, RepositoryError, OSError, or Busy if the writer of `into` does not let go in
    `writer_seconds`: then nothing has changed.
    """
    with workplace(root, checked(into)) as place:
        fresh = place / "fresh"
        for part in ("segments", "tombstones"):
            (fresh / part).mkdir(parents=True)
        Backups(repository, backup.collection).download(backup, fresh, progress)
        _try_opening(fresh, backup)
        fsync_tree(fresh)
        try:
            _show(fresh, backup.manifest, collection_path(root, into), time.monotonic() + writer_seconds)
        except Locked as error:
            raise Busy(f"nothing was restored: {error}") from error


def _try_opening(fresh: Path, backup: Backup) -> None:
    try:
        for entry in backup.manifest.segments:
            Part.open(fresh, entry)
    except (CorruptFile, FileNotFoundError) as error:
        raise DamagedBackup(f"snapshot {backup.name!r} cannot be opened: {error}") from error


def _show(fresh: Path, manifest: Manifest, path: Path, until: float) -> None:
    _await_dropped(path, until)
    if not path.exists():
        _begin(fresh, manifest, -1)
        appear(fresh, path)
        return
    with handed_over(path, until - time.monotonic()):
        _begin(fresh, manifest, newest_generation(path))
        _exchange(fresh, path)
        fsync_directory(fresh.parent)
        fsync_directory(path.parent)


def _exchange(fresh: Path, path: Path) -> None:
    try:
        exchange(fresh, path)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOSYS):
            raise
        raise CollectionExists(
            f"there is a collection {path.name!r}, and this file system cannot put another in its place in "
            "one step: drop it first, or restore into another name"
        ) from error


def _await_dropped(path: Path, until: float) -> None:
    """Wait for writers that have not noticed that the collection they write to was dropped."""
    while not remove_dropped(path.parent.parent, path.name):
        if time.monotonic() > until:
            raise Locked(f"the collection {path.name!r} that was dropped has a writer still")
        time.sleep(POLL_SECONDS)


def _begin(fresh: Path, manifest: Manifest, newest: int) -> None:
    """Publish the restored files as a generation after `newest`, of which the log holds nothing yet."""
    generation = max(newest, manifest.generation) + 1
    changes = {
        "generation": generation,
        "position": 0,
        "lexical": _renamed(fresh, manifest.lexical, generation),
    }
    publish(fresh, manifest.successor(**changes))


def _renamed(fresh: Path, lexical: LexicalEntry | None, generation: int) -> LexicalEntry | None:
    """Give tantivy's files a name by which no snapshot of the collection before could find them."""
    if lexical is None:
        return None
    name = f"lexical-{generation:06d}"
    os.replace(fresh / lexical.directory, fresh / name)  # noqa: PTH105 - as in `durable`
    return LexicalEntry(directory=name, files=lexical.files)
