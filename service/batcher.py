"""The only way to a net: one owner per net, who forms batches across requests.

Callers' texts are tokenised in worker threads (some callers come with items of the net's own, which need no
tokenising) and queued by call; the owner takes a batch from the queue (see `batch_queue`) and runs one
forward at a time in the net's own thread. It sleeps for nobody: it waits only for small calls that are
being tokenised at that moment, so calls that come together share a forward and a lone call starts at once.
A call whose caller has gone leaves the queue before it costs anything, and the queue is bounded by tokens,
since tokens and not calls are what a net spends.
"""

import asyncio
import logging
import math
import time
from collections.abc import Callable, Coroutine, Iterator, Sequence, Sized
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, Literal, Protocol

from models import Kind
from service.batch_queue import Array, BatchQueue, Call, Entry
from service.batch_queue import Priority as Priority
from service.workers import Workers

Look = Callable[[Sequence[Sized]], None]
Dropped = Literal["gone", "late", "full", "failed"]

MEMORY = 10
"""Full batches' worth of tokens over which the speed of a net is measured. It fades by tokens and not by
forwards, so that many lone questions, which waste most of a forward, do not hide what full batches take.
"""

log = logging.getLogger(__name__)


class Overloaded(RuntimeError):  # noqa: N818 - it says a state
    """The queue is full; `retry_after` is the seconds until it has room for the call."""

    def __init__(self, message: str, retry_after: float) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class TooManyTokens(ValueError):  # noqa: N818 - it says what is wrong
    """One call asks for more than the queue can ever hold; no later try will do better."""


class NetFailed(RuntimeError):  # noqa: N818 - it says a state
    """The forward that a call had part in raised; the cause is chained."""


class Closed(RuntimeError):  # noqa: N818 - it says a state
    """The batcher is shutting down."""


class Net(Protocol):
    """What can be put behind a batcher. `tokenize` is called from many threads, `forward` from one."""

    def tokenize(self, inputs: Sequence[Any], kind: Kind) -> Sequence[Sized]:
        """An item for each input, for a text its token ids. Its length is its tokens, never 0."""
        ...

    def forward(self, items: Sequence[Any]) -> Array:
        """One row per item, in order."""
        ...


class Observer:
    """Told on the event loop what a batcher does, for metrics; here it does nothing."""

    def waited(self, priority: Priority, seconds: float) -> None:
        """A call waited so long, from tokenisation to the start of a forward that it has part in."""

    def ran(self, items: int, tokens: int, seconds: float) -> None:
        """A forward of so many items and tokens, padding not counted, took so long."""

    def dropped(self, reason: Dropped, items: int) -> None:
        """So many items left the queue, or never entered it, without a forward."""


class Batcher:
    """What stands before a net. `budget` and `most` bound a forward (padded tokens, items), `limit` the queue
    (tokens).

    Every method runs on the event loop. Vectors do not depend on the batch beyond their last bits.
    """

    def __init__(
        self,
        net: Net,
        workers: Workers,
        *,
        budget: int,
        most: int,
        limit: int,
        name: str,
        observer: Observer | None = None,
    ) -> None:
        self.name = name
        self._net = net
        self._workers = workers
        self._limit = limit
        self._most = most
        self._observer = observer or Observer()
        self._queue = BatchQueue(budget, most)
        self._arriving: dict[Priority, set[asyncio.Future[None]]] = {"interactive": set(), "bulk": set()}
        self._wake = asyncio.Event()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="net")
        self._owner: asyncio.Task[None] | None = None
        self._closed = False
        self._memory = float(MEMORY * budget)
        self._running_tokens, self._began = 0, 0.0
        self._spent_tokens = self._spent_seconds = 0.0

    @property
    def queued_tokens(self) -> int:
        """Tokens that wait for a forward."""
        return self._queue.tokens

    @property
    def pending_tokens(self) -> int:
        """Tokens that wait for a forward or are in one."""
        return self._queue.tokens + self._running_tokens

    def seconds(self, tokens: int) -> float:
        """Seconds until so many more tokens would be done, after what runs and waits, by measured speed."""
        speed = self._tokens_per_second()
        rest = self._running_tokens / speed - (time.monotonic() - self._began)
        return max(0.0, rest) + (self._queue.tokens + tokens) / speed

    async def start(self) -> None:
        """Begin to run forwards; calls made before wait."""
        self._owner = asyncio.create_task(self._own(), name=f"batcher {self.name}")

    async def close(self) -> None:
        """Finish the forward that is running; every other call fails with Closed."""
        self._closed = True
        self._wake.set()
        if self._owner is not None:
            await self._owner
        self._thread.shutdown(wait=False)

    async def encode(
        self,
        inputs: Sequence[Any],
        *,
        kind: Kind = "query",
        priority: Priority = "interactive",
        deadline: float | None = None,
        look: Look | None = None,
    ) -> Array:
        """One row per input, in order: texts, or whatever the net tokenises. `deadline` is in seconds of
        `time.monotonic()`. `look` sees the items before they queue, and what it raises goes to the caller.

        Raises Overloaded, TooManyTokens, TimeoutError past the deadline, NetFailed, Closed. Cancelling it
        takes what waits off the queue.
        """
        if not inputs:
            raise ValueError("there is no text to encode")
        return await self._answer(self._enter(inputs, kind, priority, _ends(deadline), look), _ends(deadline))

    async def submit(
        self, items: Sequence[Sized], *, priority: Priority = "interactive", deadline: float | None = None
    ) -> Array:
        """One row per item, in order, for items that need no tokenising; everything else as of `encode`."""
        if not items:
            raise ValueError("there is no item to submit")
        return await self._answer(self._queue_up(items, priority, _ends(deadline)), _ends(deadline))

    async def _answer(self, entering: Coroutine[Any, Any, Call], ends: float) -> Array:
        try:
            async with asyncio.timeout(None if ends == math.inf else ends - time.monotonic()):
                return await self._outcome(await entering)
        except TimeoutError:
            raise TimeoutError(f"the deadline passed before the net {self.name} came to the call") from None

    async def _enter(
        self, inputs: Sequence[Any], kind: Kind, priority: Priority, ends: float, look: Look | None
    ) -> Call:
        self._admit(len(inputs), len(inputs))  # each has at least one token, so much is known for nothing
        with self._announced(priority, len(inputs)):
            items = await self._workers.run(self._net.tokenize, inputs, kind)
            if look is not None:
                look(items)
            return await self._queue_up(items, priority, ends)

    async def _queue_up(self, items: Sequence[Sized], priority: Priority, ends: float) -> Call:
        self._admit(sum(map(len, items)), len(items))
        result: asyncio.Future[Array] = asyncio.get_running_loop().create_future()
        call = Call(priority, ends, dict(enumerate(items)), result)
        self._queue.add(call)
        self._wake.set()
        return call

    async def _outcome(self, call: Call) -> Array:
        try:
            return await call.result
        finally:
            self._drop(call)

    def _admit(self, tokens: int, items: int) -> None:
        if self._closed:
            raise Closed(f"the net {self.name} is shutting down")
        if tokens > self._limit:
            raise TooManyTokens(
                f"the call has {tokens} tokens or more, and {self._limit} may wait for the net {self.name}: "
                "send fewer texts at a time"
            )
        if self._queue.tokens + tokens > self._limit:
            self._observer.dropped("full", items)
            raise Overloaded(
                f"{self._queue.tokens} of {self._limit} tokens are waiting for the net {self.name}",
                self.seconds(tokens - self._limit),
            )

    @contextmanager
    def _announced(self, priority: Priority, inputs: int) -> Iterator[None]:
        """Let the owner wait for a call being tokenised, unless it will fill batches by itself anyway."""
        arrival: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if inputs <= self._most:
            self._arriving[priority].add(arrival)
        try:
            yield
        finally:
            self._arriving[priority].discard(arrival)
            arrival.set_result(None)

    def _drop(self, call: Call) -> None:
        """Take what still waits of a call off the queue, and say why."""
        items = self._queue.remove(call)
        if items:
            reason: Dropped = "failed" if call.failed() else "late" if call.late() else "gone"
            self._observer.dropped(reason, items)

    async def _own(self) -> None:
        """Form a batch, run it, and again; whatever ends this ends every call that waits."""
        try:
            while not self._closed:
                await self._wake.wait()
                await self._gather()
                if batch := self._form():
                    await self._run(batch)
                elif not self._closed:
                    self._wake.clear()
        finally:
            self._closed = True
            for call in list(self._queue):
                call.fail(Closed(f"the net {self.name} was shut down while the call waited"))

    async def _gather(self) -> None:
        """Wait for the calls being tokenised now that the next batch has room for."""
        first: Priority = "interactive"
        expected = set() if self._queue.fills_a_batch(first) else set(self._arriving[first])
        if not self._queue.has(first) and not self._queue.fills_a_batch("bulk"):
            expected |= self._arriving["bulk"]
        if expected:
            await asyncio.wait(expected)

    def _form(self) -> list[Entry]:
        for call in [call for call in self._queue if call.gone()]:
            self._drop(call)
        return self._queue.take()

    async def _run(self, batch: list[Entry]) -> None:
        """One forward; its rows, or its error, go to the calls that have part in it and to no other."""
        shares: dict[Call, list[int]] = {}
        for number, entry in enumerate(batch):
            shares.setdefault(entry.call, []).append(number)
        began = self._began = time.monotonic()
        for call in shares:
            self._observer.waited(call.priority, began - call.since)
        items = [entry.item for entry in batch]
        self._running_tokens = sum(map(len, items))
        running = asyncio.get_running_loop().run_in_executor(self._thread, self._forward, items)
        await asyncio.wait([running])
        self._running_tokens = 0
        self._measure(items, time.monotonic() - began)
        error = running.exception()
        if error is not None:
            log.error("a forward of the net %s failed", self.name, exc_info=error)
        for call, numbers in shares.items():
            if error is None:
                call.deliver([batch[number].position for number in numbers], running.result()[numbers])
            else:
                call.fail(_failure(self.name, error))

    def _forward(self, items: list[Sized]) -> Array:
        rows = self._net.forward(items)
        if len(rows) != len(items):
            raise ValueError(f"the net gave {len(rows)} rows for {len(items)} texts")
        return rows

    def _measure(self, items: list[Sized], seconds: float) -> None:
        count = sum(map(len, items))
        kept = math.exp(-count / self._memory)
        self._spent_tokens = kept * self._spent_tokens + count
        self._spent_seconds = kept * self._spent_seconds + seconds
        self._observer.ran(len(items), count, seconds)

    def _tokens_per_second(self) -> float:
        """How fast the net has been lately; before any forward, as if a full queue were a second's work."""
        return self._spent_tokens / self._spent_seconds if self._spent_seconds else float(self._limit)


def _ends(deadline: float | None) -> float:
    return math.inf if deadline is None else deadline


def _failure(name: str, error: BaseException) -> NetFailed:
    failure = NetFailed(f"the net {name} failed: {error}")
    failure.__cause__ = error
    return failure
