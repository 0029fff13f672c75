"""Looks once a second at what probes and metrics tell and only others know: logs, Redis, and the room left.

Probes read what was seen last, so a log that hangs keeps nobody from hearing that the service is alive. That
an indexer is stuck can be told from the log alone, wherever it runs: operations wait, and neither the
generation served nor the count of those encoded moves.
"""

import asyncio
import logging
import shutil
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from indexer.queue.contract import LogUnavailable
from service.catalog import Catalog, Collection

LOOK_SECONDS = 1.0

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Seen:
    """What one collection's log said: the position given last, how far the indexer had come, on the monotonic
    clock since when, and what it says holds it up.
    """

    last: int
    progress: tuple[int, int]  # position served, operations encoded of the first job that waits
    since: float
    problem: str | None

    @property
    def behind(self) -> int:
        """Operations that were not searchable."""
        return self.last - self.progress[0]

    def stalled(self, now: float) -> float:
        """Seconds for which those have not got any further."""
        return now - self.since if self.behind else 0.0


class Lookout:
    """Looks between `start` and `stop`."""

    def __init__(self, catalog: Catalog, data_dir: Path) -> None:
        self.logs: dict[str, Seen] = {}
        self.errors: dict[str, str] = {}  # why a collection's log could not be read
        self.redis: str | None = None  # what is wrong with the server that has the logs, if one has
        self.free_bytes = 0
        self._catalog = catalog
        self._data_dir = data_dir
        self._stopping = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Look, and go on looking."""
        await self.look()
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """Stop, once the look under way has ended: logs may be closed after it."""
        self._stopping.set()
        if self._task is not None:
            await self._task

    async def look(self) -> None:
        """Look now."""
        await asyncio.to_thread(self._look, list(self._catalog))

    async def _run(self) -> None:
        while not self._stopping.is_set():
            with suppress(TimeoutError):
                async with asyncio.timeout(LOOK_SECONDS):
                    await self._stopping.wait()
            try:
                await self.look()
            except Exception:  # the outermost loop: what was seen last is told until it works again
                log.exception("looking at logs and disk failed; trying again")

    def _look(self, collections: Sequence[Collection]) -> None:
        server = self._catalog.logs.server
        self._see_redis(None if server is None else server.problem())
        logs: dict[str, Seen] = {}
        errors: dict[str, str] = {}
        for collection in collections:
            try:
                logs[collection.name] = _seen(collection, self.logs.get(collection.name))
            except LogUnavailable as error:
                errors[collection.name] = str(error)
                if server is not None:
                    break  # it has the others too, and each would be waited for
        self.logs, self.errors = logs, errors
        self.free_bytes = shutil.disk_usage(_existing(self._data_dir)).free

    def _see_redis(self, problem: str | None) -> None:
        if problem != self.redis:
            log.warning("%s", problem or "Redis is well again")
        self.redis = problem


def _existing(path: Path) -> Path:
    """The directory, or the one in which it will be made."""
    return next(each for each in (path, *path.absolute().parents) if each.exists())


def _seen(collection: Collection, before: Seen | None) -> Seen:
    position, last = collection.current.manifest.position, collection.log.last_position()
    waiting = collection.log.read(position, 1, 1) if last > position else []
    job = collection.log.job(waiting[0].job) if waiting else None
    progress = position, job.encoded if job else 0
    stuck = before is not None and before.progress == progress and before.behind > 0
    since = before.since if before is not None and stuck else time.monotonic()
    return Seen(last, progress, since, job.error if job else None)
