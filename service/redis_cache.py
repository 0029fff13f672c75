"""Caches in Redis, which all processes of a service share.

A search waits for a look, briefly, and for nothing else: what it leaves, and what it has used, is written
together with what others leave, ten times a second, since a server that also keeps logs brings every write to
the disk. Of each cache Redis knows when its entries were last used and how large they are; one script writes
and makes room, so no process ever sees more than the budget. A server that does not answer in time is left
alone until it answers a task that asks it every second.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from typing import TypeVar, cast

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError, ResponseError

from service.cache import Key, Tally, cost
from service.redis_script import WRITE

WAIT = 0.025
"""Seconds that a look may take. A search makes two, one after another."""

PATIENCE = 10
"""So many times as long may take what no search waits for: to connect, and to write."""

LOOK_SECONDS, WRITE_SECONDS = 1.0, 0.1

KEPT_SECONDS = 3600
"""How long an entry is kept that nobody uses."""

BOOKS_BYTES = 384
"""What the books take of an entry in Redis, about; what the entry itself takes Redis says."""

MOST_WAITING = 2**20
"""Bytes that may wait to be written, a cache: Redis does nothing else while it writes them."""

CONNECTIONS = 8

FAILED = (RedisError, OSError, TimeoutError)
T = TypeVar("T")

log = logging.getLogger(__name__)


class RedisLink:
    """The way to the server: `lost` says why it is left alone at present, `refused` why what was written last
    was not taken. For the event loop only.
    """

    def __init__(self, url: str, wait: float = WAIT) -> None:
        pool = BlockingConnectionPool.from_url(
            url,
            max_connections=CONNECTIONS,
            timeout=None,
            retry=Retry(NoBackoff(), 0),
            socket_timeout=LOOK_SECONDS,
            socket_connect_timeout=LOOK_SECONDS,
        )
        self.redis = Redis.from_pool(pool)
        self._wait = wait
        self.lost: str | None = None
        self.refused: str | None = None
        self._caches: list[RedisCache] = []
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def problem(self) -> str | None:
        """What is wrong, for whoever has to act."""
        if self.lost is not None:
            return f"caches: Redis does not answer, and searches do without it: {self.lost}"
        return self.refused and f"caches: Redis takes nothing new: {self.refused}"

    def cache(self, name: str, budget: int) -> "RedisCache":
        """A cache of this name and budget in bytes, the same in all processes that give it this name."""
        self._caches.append(RedisCache(self, name, budget))
        return self._caches[-1]

    async def start(self) -> None:
        """See whether the server answers, and go on doing so."""
        await self._look()
        self._tasks = [
            asyncio.create_task(_every(LOOK_SECONDS, self._look)),
            asyncio.create_task(_every(WRITE_SECONDS, self.write)),
        ]

    async def stop(self) -> None:
        """Write what waits, and close."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.write()
        with suppress(*FAILED):
            await self.redis.aclose()

    async def write(self) -> None:
        """Write what the caches have to write."""
        for cache in self._caches:
            await cache.write()

    async def ask(self, tally: Tally, question: Callable[[], Awaitable[T]], patience: float = 1) -> T | None:
        """What the server says; None if it is left alone, or is to be from now on."""
        if self.lost is not None:
            return None
        try:
            return await _within(patience * self._wait, question())
        except FAILED as error:
            tally.errors += 1
            self._note(error)
            return None

    async def _look(self) -> None:
        try:
            await _within(PATIENCE * self._wait, self.redis.ping())
            for cache in self._caches:
                await _within(self._wait, cache.measure())
        except FAILED as error:
            self._note(error)
        else:
            if self.lost is not None:
                log.info("caches: Redis answers")
            self.lost = None

    def _note(self, error: Exception) -> None:
        before = self.problem
        if isinstance(error, ResponseError):
            self.refused = str(error)
        else:
            self.lost = str(error)
        if before is None:
            log.warning("%s", self.problem)


class RedisCache:
    """One cache: `budget` bytes of Redis' memory, the same for all processes."""

    def __init__(self, link: RedisLink, name: str, budget: int) -> None:
        self.tally = Tally(budget)
        self._link = link
        self._prefix = f"winnow:cache:{{{name}}}:"
        self._script = link.redis.register_script(WRITE)
        self._waiting: dict[Key, bytes] = {}  # what is empty is to be removed
        self._waiting_bytes = 0
        self._used: set[Key] = set()

    async def get(self, key: Key) -> bytes | None:
        """What is kept, or waits to be."""
        if key in self._waiting:
            return self._waiting[key] or None
        found = await self._link.ask(self.tally, lambda: self._link.redis.get(self._prefix + key.hex()))
        if found is not None:
            self._used.add(key)
        return cast("bytes | None", found)  # as no decoding was asked for

    def put(self, key: Key, value: bytes) -> None:
        """Keep this soon, unless too much waits already, or it would wait for who knows how long."""
        if self._link.lost is not None:
            return
        before = cost(self._waiting[key]) if key in self._waiting else 0
        waiting = self._waiting_bytes - before + cost(value)
        if cost(value) <= self.tally.limit_bytes and waiting <= MOST_WAITING:
            self._waiting[key], self._waiting_bytes = value, waiting
        else:
            self.tally.declined += 1

    def remove(self, key: Key) -> None:
        """Keep it no longer, soon."""
        self.put(key, b"")

    async def write(self) -> None:
        """Write what waits."""
        if self._link.lost is not None or not (self._waiting or self._used):
            return
        waiting, used = self._waiting, self._used - self._waiting.keys()
        self._waiting, self._waiting_bytes, self._used = {}, 0, set()
        done = await self._link.ask(self.tally, lambda: self._write(waiting, used), PATIENCE)
        if done is not None:
            self.tally.bytes, evicted = done
            self.tally.evictions += evicted
            self._link.refused = None

    async def measure(self) -> None:
        """See how much is kept."""
        held = await self._link.redis.hget(self._prefix + "sizes", "total")
        self.tally.bytes = int(held or 0)

    async def _write(self, waiting: dict[Key, bytes], used: Iterable[Key]) -> tuple[int, int]:
        entries = [each for key, value in waiting.items() for each in (key.hex(), value)]
        numbers = [self.tally.limit_bytes, KEPT_SECONDS * 1000, BOOKS_BYTES, len(waiting)]
        held, evicted = await self._script(
            keys=[self._prefix + "used", self._prefix + "sizes"],
            args=[self._prefix, *numbers, *entries, *(key.hex() for key in used)],
        )
        return int(held), int(evicted)


async def _every(seconds: float, work: Callable[[], Awaitable[None]]) -> None:
    while True:
        await asyncio.sleep(seconds)
        await work()


async def _within(seconds: float, work: Awaitable[T]) -> T:
    """The outcome of `work`; TimeoutError.

    Not by `asyncio.timeout`: where the event loop itself was late, an answer that is there is taken.
    """
    task = asyncio.ensure_future(work)
    try:
        await asyncio.wait({task}, timeout=seconds)
        if not task.done():
            raise TimeoutError(f"no answer within {seconds * 1000:.0f} ms")
        return task.result()
    finally:
        task.cancel()
