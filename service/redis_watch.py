"""Whether Redis, which holds the logs, answers, and keeps what it acknowledged: looked at every second.

Searches need none of it. What writes find out by themselves, probes and metrics are told from here, without
waiting for a server that may not answer.
"""

import asyncio
import logging

from indexer.queue.server import Server

log = logging.getLogger(__name__)

WATCH_SECONDS = 1.0


class RedisWatch:
    """`problem` is what was wrong when it was last looked at, between `start` and `stop`."""

    def __init__(self, server: Server, seconds: float = WATCH_SECONDS) -> None:
        self.problem: str | None = None
        self._server, self._seconds = server, seconds
        self._watcher: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin to watch. The first look may take seconds, which nobody need wait for."""
        self._watcher = asyncio.create_task(self._watch())

    async def stop(self) -> None:
        """Look no more."""
        if self._watcher is not None:
            self._watcher.cancel()
            await asyncio.wait({self._watcher})

    async def _watch(self) -> None:
        while True:
            await self._look()
            await asyncio.sleep(self._seconds)

    async def _look(self) -> None:
        problem = await asyncio.to_thread(self._server.problem)
        if problem != self.problem:
            log.warning("%s", problem or "Redis is well again")
        self.problem = problem
