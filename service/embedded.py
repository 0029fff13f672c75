"""The indexer as a child of the service: spawned, watched, restarted, and never outliving it.

A child process, since encoding would stall the event loop; spawned rather than forked, since torch and open
databases do not survive a fork. It reads its standard input and exits when that ends, so it goes even when
the service is killed. It has a session of its own: Ctrl-C reaches the service, which stops it in good order.
"""

import asyncio
import logging
import os
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

log = logging.getLogger(__name__)

STOP_SECONDS = 10.0
LONGEST_PAUSE = 30.0
HEALTHY_SECONDS = 60.0  # a worker that ran this long is restarted at once


def command(data_dir: Path) -> list[str]:
    """How the worker is started."""
    return [sys.executable, "-m", "service.cli", "worker", "--data-dir", str(data_dir), "--embedded"]


class Embedded:
    """One worker process, kept alive between `start` and `stop`; `environment` adds to the service's own."""

    def __init__(
        self, command: Sequence[str], environment: Mapping[str, str] | None = None, first_pause: float = 0.5
    ) -> None:
        self.command = command
        self.environment = environment or {}
        self.first_pause = first_pause
        self.restarts = 0
        self.process: asyncio.subprocess.Process | None = None
        self._keeper: asyncio.Task[None] | None = None

    @property
    def running(self) -> bool:
        """Whether there is a live worker now."""
        return self.process is not None and self.process.returncode is None

    def start(self) -> None:
        """Begin keeping a worker alive."""
        self._keeper = asyncio.create_task(self._keep())

    async def stop(self) -> None:
        """Ask the worker to go by closing its input, and see that it does."""
        if self._keeper is None:
            return
        self._keeper.cancel()
        await asyncio.wait({self._keeper})
        if self.process is not None and self.process.returncode is None:
            await _stop(self.process)

    async def _keep(self) -> None:
        pause = self.first_pause
        while True:
            began = time.monotonic()
            outcome = await self._run()
            if time.monotonic() - began > HEALTHY_SECONDS:
                pause = self.first_pause
            log.warning("the indexer %s; starting it again in %.1f s", outcome, pause)
            await asyncio.sleep(pause)
            self.restarts += 1
            pause = min(2 * pause, LONGEST_PAUSE)

    async def _run(self) -> str:
        """Run one worker to its end, which comes back in words."""
        try:
            self.process = await asyncio.create_subprocess_exec(
                *self.command,
                stdin=asyncio.subprocess.PIPE,
                start_new_session=True,
                env={**os.environ, **self.environment},
            )
        except OSError as error:
            return f"could not be started ({error})"
        return f"ended with status {await self.process.wait()}"


async def _stop(process: asyncio.subprocess.Process) -> None:
    if process.stdin is not None:
        process.stdin.close()
    try:
        async with asyncio.timeout(STOP_SECONDS):
            await process.wait()
    except TimeoutError:
        log.warning("the indexer did not stop within %.0f s and is killed", STOP_SECONDS)
        process.kill()
        await process.wait()
