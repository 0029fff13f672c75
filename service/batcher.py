"""The only way to a net: one owner per net, who forms batches across requests.

Callers' texts are tokenised in worker threads (some callers come with items of the net's own, which need no
tokenising) and queued by call; the owner takes batches from the queue (see `batch_queue`) and runs each in a
thread of the net's own, one at a time or a few. It sleeps for nobody: it waits only for small calls that
are being tokenised at that moment, so calls that come together share a forward and a lone call starts at
once.
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
from contextvars import Context
from typing import Any, Literal, Protocol

from models import Kind
from models.memory import out_of_memory
from service import tracing
from service.batch_queue import Array, BatchQueue, Call, Entry
from service.batch_queue import Priority as Priority
from service.budgets import Budget
from service.speed import Speed
from service.tokenising import Tokenising
from service.workers import Workers

Look = Callable[[Sequence[Sized]], None]
Dropped = Literal["gone", "late", "full", "failed"]

MARGIN = 1.25
"""How much longer than estimated a caller who was refused is told to wait, so as not to come in vain."""

log = logging.getLogger(__name__)


class Overloaded(RuntimeError):  # noqa: N818 - it says a state
    """The queue is full; `retry_after` is the seconds until it will have room for the call."""

    def __init__(self, message: str, retry_after: float) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class NetFailed(RuntimeError):  # noqa: N818 - it says a state
    """The forward that a call had part in raised; the cause is chained."""


class Closed(RuntimeError):  # noqa: N818 - it says a state
    """The batcher is shutting down."""


class Net(Protocol):
    """What can be put behind a batcher. `tokenize` is called from many threads, `forward` from as many as
    there are forwards at a time.
    """

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

    def ran(self, items: int, tokens: int, padding: int, seconds: float) -> None:
        """A forward of so many items, tokens and tokens of padding beside them took so long."""

    def halved(self) -> None:
        """A forward ran out of memory, and what follows have half the budget."""

    def failed(self) -> None:
        """A forward raised."""

    def dropped(self, reason: Dropped, items: int) -> None:
        """So many items left the queue, or never entered it, without a forward."""


class Batcher:
    """What stands before a net. `budget` and `most` bound a forward (padded tokens, items), `limit` what
    waits of each priority (tokens, the setting queued_tokens). So many `forwards` run at a time, in threads
    that begin with `prepare`.

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
        forwards: int = 1,
        prepare: Callable[[], None] | None = None,
        observer: Observer | None = None,
    ) -> None:
        self.name = name
        self._net = net
        self._tokenising = Tokenising(net.tokenize, workers)
        self.limit = limit
        self._most = most
        self._observer = observer or Observer()
        self._queue = BatchQueue(budget, most)
        self._arriving: dict[Priority, set[asyncio.Future[None]]] = {"interactive": set(), "bulk": set()}
        self._arriving_items: dict[Priority, int] = {"interactive": 0, "bulk": 0}
        self._wake = asyncio.Event()
        self._threads = ThreadPoolExecutor(forwards, thread_name_prefix="net", initializer=prepare)
        self._forwards = forwards
        self._owner: asyncio.Task[None] | None = None
        self._closed = False
        self._running_tokens = 0
        self._begun: list[float] = []  # when each forward that runs began
        self._speed = Speed(float(limit))  # as if a full queue were a second's work

    @property
    def queued_tokens(self) -> int:
        """Tokens that wait for a forward."""
        return self._queue.tokens

    def tokens_of(self, priority: Priority) -> int:
        """Tokens of one priority that wait for a forward."""
        return self._queue.tokens_of(priority)

    @property
    def pending_tokens(self) -> int:
        """Tokens that wait for a forward or are in one."""
        return self._queue.tokens + self._running_tokens

    @property
    def budget(self) -> int:
        """Padded tokens of a forward at most."""
        return self._queue.budget

    @property
    def tokens_per_second(self) -> float:
        """How fast the net works through a queue."""
        return self._speed.per_second

    def seconds(self, tokens: float, priority: Priority = "interactive") -> float:
        """Seconds until so many more tokens would be done, after what runs and goes before them, by measured
        speed.
        """
        speed, queue = self.tokens_per_second, self._queue
        now = time.monotonic()
        rest = self._running_tokens / speed - (now - max(self._begun, default=now))
        before = queue.tokens if priority == "bulk" else queue.tokens_of("interactive")
        return max(0.0, rest) + (before + tokens) / speed

    async def tune(self, measure: Callable[[Net, int], Budget]) -> None:
        """Take the budget that `measure` finds for the net and so many items a forward, in the net's threads
        at once, as forwards will run.

        Before `start`; raises what `measure` raises.
        """
        loop = asyncio.get_running_loop()
        runs = [
            loop.run_in_executor(self._threads, measure, self._net, self._most) for _ in range(self._forwards)
        ]
        found = await asyncio.gather(*runs)
        self._queue.budget = min(each.tokens for each in found)
        self._speed.set(self._queue.budget, self._queue.budget / sum(each.per_second for each in found))

    async def start(self) -> None:
        """Begin to run forwards; calls made before wait. The owner works for all, so for no one request."""
        self._owner = asyncio.create_task(self._own(), name=f"batcher {self.name}", context=Context())

    async def close(self) -> None:
        """Finish the forwards that are running; every other call fails with Closed."""
        self._closed = True
        self._wake.set()
        if self._owner is not None:
            await self._owner
        self._threads.shutdown(wait=False)

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

        Raises Overloaded, TimeoutError past the deadline, NetFailed, Closed. Cancelling it takes what waits
        off the queue.
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
        # Refusing must stay cheap, so it does not wait for tokens: the inputs are taken to have as many as
        # what waits, and those being tokenised too.
        mean = max(1.0, self._queue.tokens_an_item)
        self._admit(priority, len(inputs) * mean, len(inputs), self._arriving_items[priority] * mean)
        with self._announced(priority, len(inputs)):
            items = await self._tokenising.items(inputs, kind)
            if look is not None:
                look(items)
            return await self._queue_up(items, priority, ends)

    async def _queue_up(self, items: Sequence[Sized], priority: Priority, ends: float) -> Call:
        tokens = sum(map(len, items))
        self._admit(priority, tokens, len(items))
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

    def _admit(self, priority: Priority, tokens: float, items: int, ahead: float = 0.0) -> None:
        """Refuse what there is no room for in its lane after `ahead`, and say when to come back.

        A call alone in its lane has room, or one that is larger than all would never have.
        """
        if self._closed:
            raise Closed(f"the net {self.name} is shutting down")
        queue = self._queue
        held = queue.held(priority) + ahead
        if held and held + tokens > self.limit:
            self._observer.dropped("full", items)
            too_many = held + min(tokens, self.limit) - self.limit
            passing = queue.passing(priority, too_many) - queue.tokens_of(priority)
            raise Overloaded(
                f"calls of {queue.held(priority)} {priority} tokens wait for the net {self.name}, and "
                f"{self.limit} may (WINNOW_QUEUED_TOKENS)",
                MARGIN * self.seconds(passing, priority),
            )

    @contextmanager
    def _announced(self, priority: Priority, inputs: int) -> Iterator[None]:
        """Let the owner wait for a call being tokenised, unless it will fill batches by itself anyway."""
        arrival: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._arriving_items[priority] += inputs
        if inputs <= self._most:
            self._arriving[priority].add(arrival)
        try:
            yield
        finally:
            self._arriving_items[priority] -= inputs
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
        running: set[asyncio.Task[None]] = set()
        try:
            while not self._closed:
                await self._wake.wait()
                await self._gather()
                if batch := self._form():
                    running.add(asyncio.create_task(self._run(batch)))
                    if len(running) == self._forwards:
                        running = await _all_but_one(running)
                elif not self._closed:
                    self._wake.clear()
        finally:
            self._closed = True
            await asyncio.gather(*running)
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
        """One forward, or two of half the size for want of memory."""
        now = time.monotonic()
        self._running_tokens += sum(len(entry.item) for entry in batch)
        for call in {entry.call: None for entry in batch}:
            self._observer.waited(call.priority, now - call.since)
        outcome = await self._pass(batch)
        if isinstance(outcome, BaseException) and out_of_memory(outcome) and len(batch) > 1:
            self._halve(len(batch), outcome)
            outcome.__traceback__ = None  # it holds what the forward had made, and so the memory
            middle = len(batch) // 2
            for half in (batch[:middle], batch[middle:]):
                self._settle(half, await self._pass(half))
        else:
            self._settle(batch, outcome)

    async def _pass(self, batch: list[Entry]) -> Array | BaseException:
        """The rows of a forward, or why there are none."""
        items = [entry.item for entry in batch]
        tokens, others_wait = sum(map(len, items)), self._queue.tokens > 0
        began = time.monotonic()
        self._begun.append(began)
        beside = len(self._begun)
        running = asyncio.get_running_loop().run_in_executor(self._threads, self._forward, items)
        await asyncio.wait([running])
        self._begun.remove(began)
        seconds, error = time.monotonic() - began, running.exception()
        padding = len(items) * max(map(len, items)) - tokens
        numbers = {"texts": len(items), "tokens": tokens, "padding": padding}
        tracing.forward(self.name, (entry.call.span for entry in batch), seconds, numbers, error)
        if error is not None:
            return error
        self._speed.note(tokens, seconds / beside, others_wait=others_wait)
        self._observer.ran(len(items), tokens, padding, seconds)
        return running.result()

    def _halve(self, items: int, error: BaseException) -> None:
        self._queue.budget //= 2  # two items were within it, so it was 2 or more
        self._observer.halved()
        log.warning(
            "the net %s ran out of memory over %d items, which are run again in halves; from now on a "
            "forward has at most %d tokens: %s",
            self.name,
            items,
            self._queue.budget,
            error,
        )

    def _settle(self, batch: list[Entry], outcome: Array | BaseException) -> None:
        """Rows, or an error, go to the calls that have part in the batch and to no other."""
        self._running_tokens -= sum(len(entry.item) for entry in batch)
        shares: dict[Call, list[int]] = {}
        for number, entry in enumerate(batch):
            shares.setdefault(entry.call, []).append(number)
        if isinstance(outcome, BaseException):
            self._observer.failed()
            log.error("a forward of the net %s failed", self.name, exc_info=outcome)
        for call, numbers in shares.items():
            if isinstance(outcome, BaseException):
                call.fail(_failure(self.name, outcome))
            else:
                call.deliver([batch[number].position for number in numbers], outcome[numbers])

    def _forward(self, items: list[Sized]) -> Array:
        rows = self._net.forward(items)
        if len(rows) != len(items):
            raise ValueError(f"the net gave {len(rows)} rows for {len(items)} texts")
        return rows


async def _all_but_one(running: set[asyncio.Task[None]]) -> set[asyncio.Task[None]]:
    """Wait until one of these has ended, and give the others; raises what it raised."""
    ended, others = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
    for each in ended:
        each.result()
    return others


def _ends(deadline: float | None) -> float:
    return math.inf if deadline is None else deadline


def _failure(name: str, error: BaseException) -> NetFailed:
    failure = NetFailed(f"the net {name} failed: {error}")
    failure.__cause__ = error
    return failure
