"""One writer per collection: a lock on the file LOCK, which the system drops when its holder dies.

Where machines share a collection there is a lease besides (`indexer.queue.lease`).
"""

import errno
import fcntl
import os
from collections.abc import Callable
from pathlib import Path

from indexer.queue.lease import Lease, Leased

LOCK = "LOCK"


class Locked(Exception):  # noqa: N818 (it says a state)
    """Another process, or another writer in this one, has the collection."""


class Lock:
    """Holds a collection's lock, and the lease that `take` takes, from when it is made until `release`."""

    def __init__(self, collection: Path, take: Callable[[], Lease] | None = None) -> None:
        self._path = collection / LOCK
        self._file = self._path.open("a+")
        self._lease: Lease | None = None
        try:
            self._lock()
            self._lease = take() if take is not None else None
        except Leased as error:
            self._file.close()
            raise Locked(f"collection {collection.name!r} has a writer already: {error}") from error
        except BaseException:
            self._file.close()
            raise
        self._sign()

    def _lock(self) -> None:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise Locked(
                f"collection {self._path.parent.name!r} has a writer already, {self._holder()}; stop that "
                "one first, or write through the service that runs it"
            ) from error

    def _holder(self) -> str:
        self._file.seek(0)
        return f"process {self._file.read().strip() or 'unknown'}"

    def _sign(self) -> None:
        self._file.truncate(0)
        self._file.write(str(os.getpid()))
        self._file.flush()

    def stands(self) -> bool:
        """Whether the collection was not dropped or made anew, and the lease has not run out."""
        return self._is_there() and (self._lease is None or self._lease.stands())

    def require(self) -> None:
        """See that nobody else can publish.

        FileNotFoundError if the collection was dropped, Locked if another has the lease.
        """
        if not self._is_there():  # or else documents would come up in another collection of its name
            raise FileNotFoundError(errno.ENOENT, "the collection was dropped", str(self._path.parent))
        if self._lease is not None and not self._lease.renew():
            raise Locked(f"a worker of another machine has taken over collection {self._path.parent.name!r}")

    def release(self) -> None:
        """Let the next writer in."""
        if self._lease is not None:
            self._lease.release()
        self._file.close()

    def _is_there(self) -> bool:
        try:
            return os.path.samestat(self._path.stat(), os.fstat(self._file.fileno()))
        except FileNotFoundError:
            return False
