"""Where backups and restores of a collection are at work, one at a time.

What one that was killed left is removed by the next. While one has its place no other removes files of the
collection's backups, as long as all that write to a repository share the data directory.
"""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from indexer.collection import collection_path
from indexer.lock import LOCK, Lock, Locked


class Busy(Exception):  # noqa: N818 (it says a state)
    """Another backup or restore of the collection is under way, or its writer does not let go."""


@contextmanager
def workplace(root: Path, collection: str) -> Iterator[Path]:
    """A directory for what is unfinished, beside a collection that need not be there. Busy."""
    place = collection_path(root, collection).with_name(f".copying-{collection}")
    lock = _locked(place, collection)
    try:
        for left in place.iterdir():
            if left.name != LOCK:
                _remove(left)
        yield place
    finally:
        shutil.rmtree(place, ignore_errors=True)
        lock.release()


def _locked(place: Path, collection: str) -> Lock:
    """Lock a directory that others make and remove."""
    while True:
        place.mkdir(parents=True, exist_ok=True)
        with suppress(FileNotFoundError):
            try:
                lock = Lock(place)
            except Locked as error:
                raise Busy(
                    f"a backup or restore of collection {collection!r} is under way: wait until it is done"
                ) from error
            if lock.stands():
                return lock
            lock.release()


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()
