"""How many requests a key may make in a time: counted in this process or, for several, in a Redis.

A window begins with its first request and is counted to its end, so a client that is refused is told exactly
when to come back; the price is that up to twice a rate may come around the end of a window. A Redis that does
not answer costs nobody a request: this process counts by itself, says so, and tries again.
"""

import logging
import time
from collections.abc import Awaitable, Callable
from functools import lru_cache
from typing import Any, TypeVar

from limits import RateLimitItem, parse
from limits.aio.storage import MemoryStorage, RedisStorage
from limits.aio.strategies import FixedWindowRateLimiter
from redis.asyncio import ConnectionPool
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from service.errors import RateError

T = TypeVar("T")

log = logging.getLogger(__name__)

ANSWERS_WITHIN = 0.25
"""Seconds that a Redis may take: about as long as nobody notices."""

AGAIN_SECONDS = 5.0
"""How often one that does not answer is tried."""

_item = lru_cache(parse)


class Rates:
    """Counts requests by name; `default` is a rate, `600/minute`, for those who have none of their own."""

    def __init__(self, default: str | None = None, redis_url: str | None = None) -> None:
        self.default = default
        self.lost: str | None = None  # why this process counts by itself, though it should not
        self._here = FixedWindowRateLimiter(MemoryStorage())
        self._pool = _pool(redis_url) if redis_url else None
        self._shared = _shared(redis_url, self._pool) if redis_url and self._pool else None
        self._again = 0.0

    @property
    def shared(self) -> bool:
        """Whether the counts are meant to be those of several processes."""
        return self._shared is not None

    async def count(self, name: str, rate: str | None = None) -> None:
        """Count one request. RateError when it is one too many."""
        rate = rate or self.default
        if rate is None:
            return
        item = _item(rate)
        if not await self._ask(lambda counts: counts.hit(item, name)):
            raise await self._refusal(item, rate, name)

    async def stop(self) -> None:
        """Hang up."""
        if self._pool is not None:
            await self._pool.aclose()

    async def _refusal(self, item: RateLimitItem, rate: str, name: str) -> RateError:
        window = await self._ask(lambda counts: counts.get_window_stats(item, name))
        seconds = max(0.001, window.reset_time - time.time())
        return RateError(
            f"more than {rate} (the rate of this key): try again in {seconds:.1f} s",
            retry_after=seconds,
            headers={
                "RateLimit-Policy": f'"key";q={item.amount};w={item.get_expiry()}',
                "RateLimit": f'"key";r=0;t={-int(-seconds // 1)}',
            },
        )

    async def _ask(self, question: Callable[[FixedWindowRateLimiter], Awaitable[T]]) -> T:
        if self._shared is not None and time.monotonic() >= self._again:
            if self.lost is not None:  # one request tries, the others need not wait for it
                self._again = time.monotonic() + AGAIN_SECONDS
            try:
                answer = await question(self._shared)
            except (RedisError, OSError) as error:
                self._lose(error)
            else:
                self._regain()
                return answer
        return await question(self._here)

    def _lose(self, error: Exception) -> None:
        self._again = time.monotonic() + AGAIN_SECONDS
        if self.lost is None:
            self.lost = f"Redis does not answer ({error}): every process counts by itself"
            log.warning("rates: %s", self.lost)

    def _regain(self) -> None:
        if self.lost is not None:
            self.lost, self._again = None, 0.0
            log.warning("rates: Redis answers again")


def _pool(url: str) -> ConnectionPool:
    """Tries once more, at once, in case a connection has grown old."""
    return ConnectionPool.from_url(
        url,
        socket_timeout=ANSWERS_WITHIN,
        socket_connect_timeout=ANSWERS_WITHIN,
        retry=Retry(NoBackoff(), 1),
    )


def _shared(url: str, pool: ConnectionPool) -> FixedWindowRateLimiter:
    options: dict[str, Any] = {"key_prefix": "winnow", "connection_pool": pool}
    return FixedWindowRateLimiter(RedisStorage(f"async+{url}", implementation="redispy", **options))
