"""Whose turn it is: so many searches are worked on at a time, the others wait in the order they came.

Searches that all go on at once all end late: each stands in line for threads and nets several times, and at
each the youngest may come before the oldest. Of ten times as many as two cores can answer, 64 of them let in,
99 of 100 had their answer within 0.9 s with 6 turns a core, without within 1.2 s (docs/decisions/0017).
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from service.errors import DeadlineError

A_THREAD = 6
"""Turns for each thread: fewer leave nets with batches too small, and threads without work."""


class Turns:
    """`most` turns at a time. `waited` hears of each turn how long it was waited for, in seconds."""

    def __init__(self, most: int, waited: Callable[[float], None] | None = None) -> None:
        self._free = asyncio.Semaphore(most)
        self._waited = waited

    @asynccontextmanager
    async def taken(self, deadline: float) -> AsyncIterator[None]:
        """Wait for a turn, and have it to the end. DeadlineError if the monotonic clock says so before."""
        since = time.monotonic()
        if self._free.locked():
            await self._wait(deadline - since)
        else:
            await self._free.acquire()  # which does not wait
        try:
            if self._waited is not None:
                self._waited(time.monotonic() - since)
            yield
        finally:
            self._free.release()

    async def _wait(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._free.acquire()
        except TimeoutError:
            raise DeadlineError(
                f"the time was up after {max(0.0, seconds):.3f} s, before it was this search's turn: "
                "too many are being worked on"
            ) from None
