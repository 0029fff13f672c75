"""One writer per collection: a lock on the file LOCK, which the system drops when its holder dies.

A worker keeps it for as long as it has something to do. Whoever wants to put another collection in this one's
place locks the file WANTED, and the worker lets go between two steps.


Where machines share a collection there is a lease besides (`indexer.queue.lease`).
"""

import errno
import fcntl
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from indexer.queue.lease import Lease, Leased

LOCK = "LOCK"
WANTED = "WANTED"
POLL_SECONDS = 0.02


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
