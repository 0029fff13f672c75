"""One writer per collection: a lock on the file LOCK, which the system drops when its holder dies.

A worker keeps it for as long as it runs. Whoever wants to put another collection in this one's place locks
the file WANTED, and the worker lets go between two steps.
"""

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

LOCK = "LOCK"
WANTED = "WANTED"
POLL_SECONDS = 0.02


class Locked(Exception):  # noqa: N818 (it says a state)
    """Another process, or another writer in this one, has the collection."""


class Lock:
    """Holds a collection's lock from the moment it is made until `release`."""

    def __init__(self, collection: Path) -> None:
        self._path = collection / LOCK
        self._file = self._path.open("a+")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = self._holder()
            self._file.close()
            raise Locked(
                f"collection {collection.name!r} has a writer already, {holder}; stop that one first, "
                "or write through the service that runs it"
            ) from error
        self._sign()

    def _holder(self) -> str:
        self._file.seek(0)
        return f"process {self._file.read().strip() or 'unknown'}"

    def _sign(self) -> None:
        self._file.truncate(0)
        self._file.write(str(os.getpid()))
        self._file.flush()

    def stands(self) -> bool:
        """Whether the file is still the collection's: not if it was dropped, or another has its name."""
        try:
            return os.path.samestat(self._path.stat(), os.fstat(self._file.fileno()))
        except FileNotFoundError:
            return False

    def release(self) -> None:
        """Let the next writer in."""
        self._file.close()


def wanted(collection: Path) -> bool:
    """Whether somebody waits for the writer of a collection to let go; a dead one's file says no."""
    try:
        with (collection / WANTED).open() as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except FileNotFoundError:
        return False
    return False


@contextmanager
def handed_over(collection: Path, seconds: float) -> Iterator[None]:
    """Have the writer let go of a collection, and none take it meanwhile.

    Locked if it has not within `seconds`: it finishes what it is at, which may be a merge.
    """
    with (collection / WANTED).open("a") as asking:
        fcntl.flock(asking, fcntl.LOCK_EX)
        lock = _patient(collection, time.monotonic() + seconds)
        try:
            yield
        finally:
            lock.release()


def _patient(collection: Path, until: float) -> Lock:
    while True:
        try:
            return Lock(collection)
        except Locked:
            if time.monotonic() > until:
                raise
            time.sleep(POLL_SECONDS)
