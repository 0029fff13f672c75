"""One SQLite connection that threads share by turns, in write-ahead mode, with errors a caller can act on.

Transactions begin as writers at once, so that a process waits for its turn at the beginning instead of
failing in the middle.
"""

import errno
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from threading import Lock
from typing import Literal

from indexer.queue.contract import LogUnavailable

BUSY_SECONDS = 30.0
BUSY_PAUSE = 0.01
JOURNAL_BYTES = 64 << 20

_REASONS = {
    sqlite3.SQLITE_FULL: (errno.ENOSPC, "the disk is full"),
    sqlite3.SQLITE_IOERR: (errno.EIO, "the disk refuses to read or write"),
    sqlite3.SQLITE_CANTOPEN: (errno.ENOENT, "the file cannot be opened"),
    sqlite3.SQLITE_READONLY: (errno.EROFS, "the file cannot be written"),
    sqlite3.SQLITE_BUSY: (errno.EBUSY, f"another process held it for {BUSY_SECONDS:.0f} s"),
    sqlite3.SQLITE_CORRUPT: (errno.EIO, "its content is damaged"),
    sqlite3.SQLITE_NOTADB: (errno.EIO, "it is not a SQLite file"),
}


class Connection:
    """A connection to the file `path`; `synchronous` FULL makes every commit wait for the disk."""

    def __init__(self, path: Path, *, synchronous: Literal["FULL", "NORMAL"]) -> None:
        self.path = path
        self._lock = Lock()
        with self._explained():
            self._database = sqlite3.connect(
                path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False
            )
            self._database.execute("PRAGMA auto_vacuum=INCREMENTAL")
            self._write_ahead()
            self._database.execute(f"PRAGMA journal_size_limit={JOURNAL_BYTES}")
            self._database.execute(f"PRAGMA synchronous={synchronous}")

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Give the database to one thread: committed at the end, undone if anything was raised."""
        with self._lock, self._explained():
            self._database.execute("BEGIN IMMEDIATE")
            try:
                yield self._database
                self._database.execute("COMMIT")
            except BaseException:
                if self._database.in_transaction:
                    self._database.execute("ROLLBACK")
                raise

    @contextmanager
    def rows(self, query: str, values: tuple[object, ...] = ()) -> Iterator[sqlite3.Cursor]:
        """Give the rows of a query to one thread, as they come."""
        with self._lock, self._explained(), closing(self._database.execute(query, values)) as cursor:
            yield cursor

    def _write_ahead(self) -> None:
        """Switch to that mode. SQLite gives up at once where another is about to write: wait here."""
        until = time.monotonic() + BUSY_SECONDS
        while True:
            try:
                self._database.execute("PRAGMA journal_mode=WAL")
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > until:
                    raise
                time.sleep(BUSY_PAUSE)
            else:
                return

    def shrink(self, pages: int) -> None:
        """Give up to so many free pages back to the file system."""
        with self._lock, self._explained():
            # As a script: `execute` would stop at the first page, since the statement has no columns to give.
            self._database.executescript(f"PRAGMA incremental_vacuum({pages})")

    def close(self) -> None:
        """Close once whoever uses it has done."""
        with self._lock:
            self._database.close()

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.DatabaseError as error:
            reason = _REASONS.get(getattr(error, "sqlite_errorcode", 0) & 0xFF)
            if reason is None:
                raise
            number, sentence = reason
            raise LogUnavailable(
                number, f"the operations log is unavailable: {sentence}", str(self.path)
            ) from error
