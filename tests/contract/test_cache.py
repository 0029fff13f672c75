"""What every cache does, in memory and in a real Redis, which is asked without hurry."""

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from typing import NamedTuple

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from service.cache import ENTRY_BYTES, Cache, MemoryCache, key_of, recall
from service.redis_cache import BOOKS_BYTES, RedisLink
from tests.redis_server import RedisServer, redis_server

BUDGET = 4000
PATIENT = 5.0


class Case(NamedTuple):
    """A cache, and what makes sure that it has done what it was told."""

    cache: Cache
    settle: Callable[[], Awaitable[None]]


@asynccontextmanager
async def cache_of(kind: str, url: str, budget: int = BUDGET) -> AsyncIterator[Case]:
    if kind == "memory":

        async def at_once() -> None:
            """It is done."""

        yield Case(MemoryCache(budget), at_once)
    else:
        link = RedisLink(url, PATIENT)
        cache = link.cache("c", budget)
        await link.start()

        async def settle() -> None:
            await link.write()
            await asyncio.sleep(0.002)  # what is used now was used later, in milliseconds

        yield Case(cache, settle)
        await link.stop()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with redis_server(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture(params=["memory", "redis"])
async def case(request: pytest.FixtureRequest, server: RedisServer) -> AsyncIterator[Case]:
    server.empty()
    async with cache_of(request.param, server.url) as case:
        yield case


def key(number: int) -> bytes:
    return key_of("key", str(number))


async def test_what_was_put_is_there_until_it_is_removed(case: Case):
    assert await case.cache.get(key(1)) is None
    case.cache.put(key(1), b"one")
    case.cache.put(key(2), b"two")
    for _ in range(2):  # before it has come to where it is kept, and after
        assert [await case.cache.get(key(n)) for n in (1, 2, 3)] == [b"one", b"two", None]
        await case.settle()
    case.cache.remove(key(1))
    for _ in range(2):
        assert [await case.cache.get(key(n)) for n in (1, 2)] == [None, b"two"]
        await case.settle()


async def test_what_was_used_longest_ago_makes_room(case: Case):
    for number in range(3):
        case.cache.put(key(number), bytes(100))
        await case.settle()
    assert await case.cache.get(key(0)) is not None
    await case.settle()
    number = 3
    while not case.cache.tally.evictions:
        case.cache.put(key(number), bytes(100))
        await case.settle()
        number += 1
    assert [await case.cache.get(key(n)) is not None for n in (0, 1, 2)] == [True, False, True]


async def test_what_is_larger_than_the_budget_drives_nothing_out(case: Case):
    case.cache.put(key(1), b"small")
    case.cache.put(key(2), bytes(BUDGET))
    await case.settle()
    assert [await case.cache.get(key(n)) for n in (1, 2)] == [b"small", None]
    assert (case.cache.tally.declined, case.cache.tally.evictions) == (1, 0)


async def test_what_cannot_be_read_is_a_miss_and_goes(case: Case):
    case.cache.put(key(1), b"4x")
    await case.settle()
    assert await recall(case.cache, key(1), int) is None
    await case.settle()
    assert await case.cache.get(key(1)) is None
    case.cache.put(key(1), b"42")
    assert await recall(case.cache, key(1), int) == 42
    tally = case.cache.tally
    assert (tally.hits, tally.misses, tally.errors) == (1, 1, 1)


Action = tuple[str, int, int]  # what is done, to which key, with how many bytes
ACTIONS = st.lists(
    st.tuples(
        st.sampled_from(["put", "put", "get", "remove", "settle"]), st.integers(0, 9), st.integers(0, 2000)
    ),
    max_size=20,
)


async def play(case: Case, actions: list[Action]) -> dict[int, bytes]:
    """Do all of it; gives what was put last of each key, and not removed."""
    last: dict[int, bytes] = {}
    for what, number, size in actions:
        if what == "put":
            last[number] = os.urandom(1) * size or b"x"
            case.cache.remove(key(number))
            case.cache.put(key(number), last[number])
        elif what == "remove":
            last.pop(number, None)
            case.cache.remove(key(number))
        elif what == "get":
            assert await case.cache.get(key(number)) in (None, last.get(number))
        else:
            await case.settle()
            assert case.cache.tally.bytes <= BUDGET
    await case.settle()
    return last


@given(ACTIONS)
def test_memory_keeps_its_budget_whatever_is_done(actions: list[Action]):
    async def check() -> None:
        async with cache_of("memory", "") as case:
            last = await play(case, actions)
            found = {number: await case.cache.get(key(number)) for number in range(10)}
            kept = {number: value for number, value in found.items() if value is not None}
            assert kept.items() <= last.items()
            taken = sum(len(value) + ENTRY_BYTES for value in kept.values())
            assert case.cache.tally.bytes == taken <= BUDGET

    asyncio.run(check())


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(actions=ACTIONS)
def test_redis_keeps_its_budget_and_its_books_whatever_is_done(server: RedisServer, actions: list[Action]):
    async def check() -> None:
        server.empty()
        async with cache_of("redis", server.url) as case:
            last = await play(case, actions)
            assert await case.cache.get(key(10)) is None
            with server.client() as client:
                names = {n: f"winnow:cache:{{c}}:{key(n).hex()}" for n in range(10)}
                kept = {n: client.get(name) for n, name in names.items() if client.exists(name)}
                taken = sum(client.memory_usage(names[n]) + BOOKS_BYTES for n in kept)
            assert kept.items() <= last.items()
            assert case.cache.tally.bytes == taken <= BUDGET

    asyncio.run(check())


async def test_a_budget_in_redis_is_about_what_is_taken(server: RedisServer):
    server.empty()
    with server.client() as client:
        before = client.info("memory")["used_memory"]
        async with cache_of("redis", server.url, 10**7) as case:
            for number in range(1000):
                case.cache.put(key(number), os.urandom(500))
            await case.settle()
            taken = client.info("memory")["used_memory"] - before
            assert case.cache.tally.bytes == pytest.approx(taken, rel=0.25)


async def test_entries_that_nobody_uses_expire_and_leave_the_books(
    server: RedisServer, monkeypatch: pytest.MonkeyPatch
):
    server.empty()
    monkeypatch.setattr("service.redis_cache.KEPT_SECONDS", 1)
    async with cache_of("redis", server.url) as case:
        case.cache.put(key(1), b"one")
        await case.settle()
        await asyncio.sleep(1.1)
        assert await case.cache.get(key(1)) is None
        case.cache.put(key(2), b"two")
        await case.settle()
        with server.client() as client:
            assert client.zrange("winnow:cache:{c}:used", 0, -1) == [key(2).hex().encode()]
            assert case.cache.tally.bytes == int(client.hget("winnow:cache:{c}:sizes", "total"))
        await asyncio.sleep(1.1)
        with server.client() as client:
            assert client.keys() == []


async def test_processes_share_one_cache_and_its_budget(server: RedisServer):
    server.empty()
    async with cache_of("redis", server.url) as one, cache_of("redis", server.url) as other:
        one.cache.put(key(1), bytes(2000))
        await one.settle()
        assert await other.cache.get(key(1)) == bytes(2000)
        await other.settle()
        other.cache.put(key(2), bytes(2000))
        await other.settle()
        assert await one.cache.get(key(1)) is None
        assert await one.cache.get(key(2)) == bytes(2000)
        assert other.cache.tally.evictions == 1


async def test_keys_tell_where_one_part_ends(case: Case):
    assert key_of("ab", "c") != key_of("a", "bc") != key_of("abc")
    assert key_of("a", "") != key_of("a")
