"""Counting requests: here, in a Redis, and without the Redis that there should be."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from service import rates as module
from service.errors import RateError
from service.rates import Rates
from tests.redis_server import RedisServer


@asynccontextmanager
async def counting(default: str | None, server: RedisServer | None = None) -> AsyncIterator[Rates]:
    rates = Rates(default, server.url if server else None)
    try:
        yield rates
    finally:
        await rates.stop()


async def passed(rates: Rates, times: int, name: str = "reader", rate: str | None = None) -> int:
    """How many of so many requests are let through."""
    through = 0
    for _ in range(times):
        try:
            await rates.count(name, rate)
            through += 1
        except RateError:
            continue
    return through


async def test_without_a_rate_all_pass():
    async with counting(None) as rates:
        assert await passed(rates, 100) == 100


async def test_as_many_as_the_rate_says_pass():
    async with counting("3/hour") as rates:
        assert await passed(rates, 5) == 3
        assert await passed(rates, 5, "other") == 3
        assert await passed(rates, 5, "third", rate="1/hour") == 1


async def test_a_new_window_begins_when_it_was_said_to():
    async with counting("1/second") as rates:
        await rates.count("reader")
        with pytest.raises(RateError) as refused:
            await rates.count("reader")
        assert 0 < refused.value.retry_after <= 1
        await asyncio.sleep(refused.value.retry_after)
        await rates.count("reader")


async def test_processes_that_share_a_redis_count_together(redis: RedisServer):
    async with counting("3/hour", redis) as one, counting("3/hour", redis) as other:
        assert await passed(one, 2) == 2
        assert await passed(other, 5) == 1
        assert one.lost is None
        with pytest.raises(RateError) as refused:
            await one.count("reader")
        assert 3590 < refused.value.retry_after <= 3600


async def test_without_its_redis_a_process_counts_by_itself_until_it_is_back(
    redis: RedisServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    monkeypatch.setattr(module, "AGAIN_SECONDS", 0.2)
    async with counting("3/hour", redis) as rates:
        assert await passed(rates, 1) == 1
        redis.kill()
        assert await passed(rates, 5) == 3, "its own count begins anew, and holds"
        assert "every process counts by itself" in rates.lost
        redis.start()
        await asyncio.sleep(0.3)
        assert await passed(rates, 5) == 2, "what was counted before counts again"
        assert rates.lost is None
    assert [record.message.split(" (")[0] for record in caplog.records if record.name == "service.rates"] == [
        "rates: Redis does not answer",
        "rates: Redis answers again",
    ]


async def test_a_redis_that_hangs_holds_nobody_up_for_long():
    async def never(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    server = await asyncio.start_server(never, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    rates = Rates("3/hour", f"redis://127.0.0.1:{port}/0")
    began = time.monotonic()
    assert await passed(rates, 50) == 3
    assert time.monotonic() - began < 5, "the first waits, the others do not"
    assert rates.lost
    await rates.stop()
    server.close()
