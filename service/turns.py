"""Whose turn it is: so many searches are worked on at a time, the others wait in the order they came.

Searches that all go on at once all end late: each stands in line for threads and nets several times, and at
each the youngest may come before the oldest. Of ten times as many as two cores can answer, 64 of them let in,
99 of 100 had their answer within 0.9 s with 6 turns a core, without within 1.2 s (docs/decisions/0017).

The line knows how fast it moves, and so when another search would stand in it for too long.
"""

import asyncio
import math
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

from service.errors import DeadlineError
from service.flow import Flow

A_THREAD = 6
"""Turns for each thread: fewer leave nets with batches too small, and threads without work."""


class Turns:
    """`a_thread` turns for each thread. Whoever comes should have gone again within `longest` seconds.

    `waited` hears of each turn how long it was waited for, in seconds.
    """

    def __init__(
        self,
        threads: int,
        longest: float = math.inf,
        waited: Callable[[float], None] | None = None,
        *,
        a_thread: int = A_THREAD,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._most = a_thread * threads
        self._longest = longest
        self._free = asyncio.Semaphore(self._most)
        self._several = asyncio.Semaphore(max(1, self._most - threads))
        self._flow = Flow(threads, clock=clock)
        self._waited = waited

    def full(self, coming: int) -> bool:
        """Whether another might not be done in time, if those here go as fast as of late.

        `coming` are all that were told to come and have not gone. All that share its turns may end before it.
        Never while a turn is free.
        """
        pace, before = self._flow.pace(), max(coming, self._flow.inside)
        return before >= self._most and pace is not None and (before + self._most) * pace > self._longest

    @asynccontextmanager
    async def taken(self, deadline: float) -> AsyncIterator[None]:
        """Wait for a turn, and have it to the end. DeadlineError if the monotonic clock says so before."""
        worked, since = False, time.monotonic()
        self._flow.enter()
        try:
            async with _waited_for(self._free, deadline):
                worked = True
                if self._waited is not None:
                    self._waited(time.monotonic() - since)
                yield
        finally:
            self._flow.leave(worked=worked)

    def one_of_several(self, deadline: float) -> AbstractAsyncContextManager[None]:
        """Around the turn of a search that came with others: these leave a turn of each thread to those that
        come alone, which do not find a whole batch before them.
        """
        return _waited_for(self._several, deadline)


@asynccontextmanager
async def _waited_for(free: asyncio.Semaphore, deadline: float) -> AsyncIterator[None]:
    if free.locked():
        await _wait(free, deadline - time.monotonic())
    else:
        await free.acquire()  # which does not wait
    try:
        yield
    finally:
        free.release()


async def _wait(free: asyncio.Semaphore, seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds):
            await free.acquire()
    except TimeoutError:
        raise DeadlineError(
            f"the time was up after {max(0.0, seconds):.3f} s, before it was this search's turn: "
            "too many are being worked on"
        ) from None
