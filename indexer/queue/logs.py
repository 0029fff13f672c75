"""Where a collection's log is: in its directory, or in Redis under a name that its directory holds.

A collection that is dropped and made again has another name there, and so another log. A log that is in one
place is not looked for in the other: what was acknowledged there would be forgotten without a word.
"""

import os
import uuid
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from indexer.queue.contract import Log
from indexer.queue.lease import Lease
from indexer.queue.redis import RedisLog
from indexer.queue.server import Server
from indexer.queue.sqlite import SqliteLog
from indexer.segment.durable import fsync_directory, fsync_file

SQLITE = "log.sqlite"
REDIS = "log.redis"


class WrongLog(OSError):  # noqa: N818 (it says a state)
    """The collection's log is not where the settings say that logs are."""


class Logs:
    """The logs of a data directory: SQLite files, or with the URL of a Redis server streams there."""

    def __init__(self, redis_url: str | None = None) -> None:
        self.server = None if redis_url is None else Server(redis_url)

    def open(self, directory: Path, applied: int = 0) -> Log:
        """Open the log of a collection's directory, and make it if there is none; `applied` as in RedisLog.

        WrongLog if it is elsewhere, LogUnavailable or OSError if it cannot be opened.
        """
        if self.server is None:
            if (directory / REDIS).exists():
                raise WrongLog(f"the log of collection {directory.name!r} is in Redis: set WINNOW_REDIS_URL")
            return SqliteLog(directory / SQLITE)
        return RedisLog(self.server, log_name(directory), applied)

    def lease(self, directory: Path) -> Callable[[], Lease] | None:
        """How to take the lease of a collection; None where the lock on its file is enough."""
        server = self.server
        return None if server is None else lambda: Lease(server, log_name(directory))

    def close(self) -> None:
        """Let go of the server, once all logs are closed."""
        if self.server is not None:
            self.server.close()


def log_name(directory: Path) -> str:
    """What the log of a collection is called in Redis; given, durably, to a collection without a log."""
    path = directory / REDIS
    with suppress(FileNotFoundError):
        return path.read_text("ascii").strip()
    if (directory / SQLITE).exists():
        raise WrongLog(
            f"the log of collection {directory.name!r} is a SQLite file: unset WINNOW_REDIS_URL, or move "
            "it by a backup that is restored with it set"
        )
    return _given(path)


def _given(path: Path) -> str:
    """Link a finished file into place: whoever comes second finds the name that the first gave."""
    fresh = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    fresh.write_text(uuid.uuid4().hex, "ascii")
    fsync_file(fresh)
    with suppress(FileExistsError):
        os.link(fresh, path)
    fresh.unlink()
    fsync_directory(path.parent)
    return path.read_text("ascii").strip()
