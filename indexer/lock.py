"""One writer per collection: a lock on the file LOCK, which the system drops when its holder dies."""

import fcntl
import os
from pathlib import Path

LOCK = "LOCK"


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
