"""A queue that is full, before a net that is busy for as long as a test wants."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.state import State
from tests.nets import CountingNet, WordOverlapCrossNet

SETTINGS = {"batch_tokens": 6, "queued_tokens": 6, "threads": 1}
"""A service for `full`: 6 tokens may wait, for one forward at a time."""


class CrossNetThatShuts(WordOverlapCrossNet):
    """A cross-encoder whose gate is shut again after the first forward."""

    def forward(self, items: Sequence[Sequence[int]]) -> NDArray[np.float32]:
        found = super().forward(items)
        if len(self.forwards) == 1:
            self.gate.clear()
        return found


@asynccontextmanager
async def full(
    net: CountingNet, state: State, embed: Callable[[list[str]], Awaitable[Any]]
) -> AsyncIterator[None]:
    """While it lasts, `net` is busy and 6 tokens wait; `embed` has the service encode texts by it."""
    await embed(["tide"])
    (batcher,) = (batcher for role, batcher in state.nets.queues() if role == "dense")
    net.gate.clear()
    while net.entered.acquire(blocking=False):
        pass
    calls: list[asyncio.Future[Any]] = []
    try:
        while (waiting := batcher.queued_tokens) < 6:
            calls.append(asyncio.ensure_future(embed(["tide"])))
            while batcher.queued_tokens == waiting and not net.entered.acquire(blocking=False):
                await asyncio.sleep(0.001)
        yield
    finally:
        net.gate.set()
        await asyncio.gather(*calls)
