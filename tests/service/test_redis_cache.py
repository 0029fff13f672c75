"""Services whose caches are in a real Redis: what they share, and what they do when it is not there."""

import asyncio
import socket
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.nets import CountingNet, WordOverlapCrossNet, loading
from tests.redis_server import RedisServer
from tests.running import Service, running

DOCUMENTS = [{"id": "tide", "text": "The moon pulls the sea."}, {"id": "mond", "text": "The moon is far."}]
BUDGETS = {"result_cache_bytes": 2**20, "encoding_cache_bytes": 2**20}
CROSS = [{"stage": "bm25", "unit": "passage"}, {"stage": "cross"}]


async def eventually(holds: Callable[[], Awaitable[Any]]) -> Any:
    """What `holds` gives once it is true: a machine may be busy, and writes are gathered."""
    async with asyncio.timeout(20):
        while not (found := await holds()):
            await asyncio.sleep(0.05)
    return found


async def readiness(service: Service) -> str:
    return " ".join((await service.ask("GET", "/readyz"))["reasons"])


async def well(service: Service) -> None:
    async def ready() -> bool:
        response = await service.client.get("/readyz")
        return response.status_code == 200 and response.json()["reasons"] == []

    await eventually(ready)


async def filled(service: Service) -> None:
    await service.make(components=["bm25", "dense"])
    await service.put(DOCUMENTS)
    await well(service)


def value(service: Service, name: str, cache: str = "results") -> float:
    labels = {"cache": cache, "net": ""}
    return service.state.metrics.registry.get_sample_value(f"winnow_cache_{name}", labels) or 0.0


async def kept(service: Service) -> bool:
    """Whether Redis has what was answered."""
    return value(service, "bytes") > 0


async def test_services_on_one_volume_share_answers_and_encodings(redis: RedisServer, tmp_path: Path):
    nets = CountingNet(), CountingNet()
    async with AsyncExitStack() as stack:
        one, other = [
            await stack.enter_async_context(
                running(tmp_path / "data", load=loading(dense=net), redis_url=redis.url, **BUDGETS)
            )
            for net in nets
        ]
        await filled(one)
        await well(other)
        await other.state.catalog.refresh()
        before = len(nets[1].batches)
        first = await one.search("moon", pipeline="dense")

        async def shared() -> Any:
            await asyncio.sleep(0.2)  # the writer's turn
            answer = await other.search("moon", pipeline="dense")
            return answer if answer["cached"] else None

        second = await eventually(shared)
        assert (second["hits"], second["stages"]) == (first["hits"], first["stages"])
        assert await other.ids("moon", pipeline="dense", top_k=1)
        assert len(nets[1].batches) == before, "the other service encoded nothing"
        with redis.client() as client:
            names = b" ".join(client.keys())
        assert b"moon" not in names
        assert names.count(b"winnow:cache:{results}:") >= 3


SAME: dict[str, Any] = {"cross_encoder": "mine", "pipelines": {"own": CROSS}}
OTHERS: dict[str, Any] = {
    "the same": SAME,
    "another cross-encoder": SAME,
    "another pipeline of that name": {**SAME, "pipelines": {"own": [*CROSS, {"stage": "group"}]}},
}


@pytest.mark.parametrize("case", OTHERS)
async def test_a_service_that_would_answer_otherwise_does_so(redis: RedisServer, tmp_path: Path, case: str):
    for settings, fingerprint in ((SAME, "a"), (OTHERS[case], "b" if "encoder" in case else "a")):
        net = WordOverlapCrossNet(fingerprint)
        given = {**settings, **BUDGETS, "redis_url": redis.url}
        async with running(tmp_path / "data", load=loading(cross=net), **given) as service:
            if service.state.catalog.find("c") is None:
                await filled(service)
            await well(service)
            await service.state.nets.cross()
            answer = await service.search("moon", pipeline="own")
            assert answer["degraded"] == []
            if settings is SAME and not answer["cached"]:
                await eventually(lambda: kept(service))
    assert answer["cached"] == (case == "the same")


async def test_redis_may_go_and_come_back_under_traffic(redis: RedisServer, tmp_path: Path):
    async with running(tmp_path / "data", redis_url=redis.url, **BUDGETS) as service:
        await filled(service)
        asked, stop = 0, asyncio.Event()

        async def traffic(client: int) -> None:
            nonlocal asked
            while not stop.is_set():
                answer = await service.search(f"moon {client} {asked % 7}", pipeline="hybrid")
                assert answer["degraded"] == []
                asked += 1
                await asyncio.sleep(0.005)

        clients = [asyncio.create_task(traffic(number)) for number in range(4)]
        await eventually(lambda: kept(service))
        redis.kill()

        async def told() -> bool:
            return "Redis does not answer" in await readiness(service)

        await eventually(told)
        await asyncio.sleep(0.2)  # for what was asked before it was known
        before, errors = asked, value(service, "errors_total") + value(service, "errors_total", "encodings")

        async def more() -> bool:
            return asked > before + 20

        await eventually(more)
        now = value(service, "errors_total") + value(service, "errors_total", "encodings")
        assert now == errors, "nobody asks a server that does not answer"
        await asyncio.to_thread(redis.start)
        await well(service)
        hits = value(service, "hits_total")

        async def used_again() -> bool:
            return value(service, "hits_total") > hits

        await eventually(used_again)
        stop.set()
        await asyncio.gather(*clients)


@contextmanager
def silent() -> Iterator[str]:
    """The URL of a server that takes connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"redis://127.0.0.1:{listener.getsockname()[1]}/0"


async def test_a_redis_that_never_answers_is_left_alone(redis: RedisServer, tmp_path: Path):
    async with running(tmp_path / "data", redis_url=redis.url, **BUDGETS) as service:
        await service.make(components=["bm25"])
        await service.put(DOCUMENTS)
    with silent() as url:
        async with running(tmp_path / "data", redis_url=url, **BUDGETS) as service:
            for _ in range(2):
                answer = await service.search("moon")
                assert ([hit["id"] for hit in answer["hits"]], answer["cached"]) == (["mond", "tide"], False)
            while service.state.warmup.pending:
                await asyncio.sleep(0.05)
            assert "searches do without it: no answer within" in await readiness(service)
            assert value(service, "errors_total") == 0, "it was known before the first search"


async def test_a_full_redis_takes_nothing_new_and_that_is_said(redis: RedisServer, tmp_path: Path):
    async with running(tmp_path / "data", redis_url=redis.url, **BUDGETS) as service:
        await filled(service)
        await service.search("moon", pipeline="bm25")
        await eventually(lambda: kept(service))
        with redis.client() as client:
            client.config_set("maxmemory", 1)

        async def told() -> bool:
            assert not (await service.search("sea", pipeline="bm25"))["degraded"]
            return "Redis takes nothing new: " in await readiness(service)

        async def still_read() -> Any:
            return (await service.search("moon", pipeline="bm25"))["cached"]

        await eventually(told)
        await eventually(still_read)
        with redis.client() as client:
            client.config_set("maxmemory", 0)

        async def well_again() -> bool:
            await service.search(f"rain {asyncio.get_running_loop().time()}", pipeline="bm25")
            return await readiness(service) == ""

        await eventually(well_again)


async def test_what_somebody_else_wrote_there_is_a_miss(redis: RedisServer, tmp_path: Path):
    async with running(tmp_path / "data", redis_url=redis.url, **BUDGETS) as service:
        await filled(service)
        right = (await service.search("moon", pipeline="dense"))["hits"]
        await eventually(lambda: kept(service))
        with redis.client() as client:
            for name in client.keys("winnow:cache:*"):
                if client.type(name) == b"string":
                    client.set(name, b"\x80not ours")

        async def healed() -> Any:
            answer = await service.search("moon", pipeline="dense")
            assert answer["hits"] == right
            return value(service, "errors_total") > 0 and answer["cached"]

        await eventually(healed)
        assert value(service, "errors_total", "encodings") > 0
