"""Small texts tokenised in a worker thread, those of several callers together.

Handing a text to another thread costs more than tokenising it: Python's lock goes over and back. While one
job is in a thread, what comes meanwhile waits and is the next; under load many calls share a job, and a call
that is alone waits for nobody. Calls of many texts go by themselves, so that nobody waits for them.
"""

import asyncio
from collections.abc import Callable, Sequence, Sized
from typing import Any, NamedTuple

from models import Kind
from service.workers import Workers

Tokenize = Callable[[Sequence[Any], Kind], Sequence[Sized]]

FEW = 4
"""Texts of a call that shares a job."""


class _Call(NamedTuple):
    inputs: Sequence[Any]
    kind: Kind
    result: asyncio.Future[Sequence[Sized]]


class Tokenising:
    """Tokenises for one net. Every method runs on the event loop."""

    def __init__(self, tokenize: Tokenize, workers: Workers) -> None:
        self._tokenize = tokenize
        self._workers = workers
        self._waiting: list[_Call] = []
        self._job: asyncio.Task[None] | None = None

    async def items(self, inputs: Sequence[Any], kind: Kind) -> Sequence[Sized]:
        """What `tokenize` gives for these inputs; raises what it raises for them."""
        if len(inputs) > FEW:
            return await self._workers.run(self._tokenize, inputs, kind)
        call = _Call(inputs, kind, asyncio.get_running_loop().create_future())
        self._waiting.append(call)
        if self._job is None:
            self._job = asyncio.create_task(self._run())
        return await call.result

    async def _run(self) -> None:
        """Run one job after another for as long as calls wait."""
        while self._waiting:
            calls, self._waiting = [each for each in self._waiting if not each.result.done()], []
            for call, outcome in zip(calls, await self._outcomes(calls), strict=True):
                if call.result.done():
                    continue  # its caller has gone
                if isinstance(outcome, BaseException):
                    call.result.set_exception(outcome)
                else:
                    call.result.set_result(outcome)
        self._job = None

    async def _outcomes(self, calls: Sequence[_Call]) -> Sequence[Sequence[Sized] | BaseException]:
        """The items of each call, or what it raises; then each is tried by itself, to see whose it is."""
        job = self._workers.run(self._all, calls)
        (outcomes,) = await asyncio.gather(job, return_exceptions=True)
        if not isinstance(outcomes, BaseException):
            return outcomes
        jobs = (self._workers.run(self._tokenize, call.inputs, call.kind) for call in calls)
        return await asyncio.gather(*jobs, return_exceptions=True)

    def _all(self, calls: Sequence[_Call]) -> list[Sequence[Sized]]:
        """For a worker thread."""
        return [self._tokenize(call.inputs, call.kind) for call in calls]
