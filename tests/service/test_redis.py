"""A service whose log is in Redis: what it does with one that is lost, and several services together."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.redis_server import RedisServer
from tests.running import Service, running


@pytest.fixture
async def service(tmp_path: Path, redis: RedisServer) -> AsyncIterator[Service]:
    async with running(tmp_path / "data", redis_url=redis.url) as service:
        await service.make(components=["bm25"])
        await service.put([{"id": "tide", "text": "the moon pulls the sea"}])
        yield service


async def until_lost(service: Service, url: str, *, lost: bool) -> None:
    """Wait until readiness says that this Redis is lost, or that nothing is amiss."""
    async with asyncio.timeout(120):  # kernels may have to be compiled first
        while True:
            found = (await service.client.get("/readyz")).json()
            said = any(reason.startswith(f"Redis at {url}: ") for reason in found["reasons"])
            if found["status"] == ("degraded" if lost else "ready") and said == lost:
                return
            await asyncio.sleep(0.05)


async def test_without_redis_searches_go_on_and_writes_are_refused(service: Service, redis: RedisServer):
    redis.kill()
    assert await service.ids("moon") == ["tide"]
    response = await service.client.post("/v1/collections/c/documents", json=[{"id": "x", "text": "moon"}])
    assert (response.status_code, response.headers["Retry-After"]) == (503, "1")
    assert "Redis cannot be reached" in response.json()["detail"]
    shown = await service.ask("GET", "/v1/collections/c")
    assert (shown["documents"], shown["queued"]) == (1, None)
    await until_lost(service, redis.url, lost=True)
    assert 'winnow_check_ok{check="redis"} 0.0' in (await service.client.get("/metrics")).text


async def test_a_lost_redis_that_comes_back_is_used_again(service: Service, redis: RedisServer):
    redis.kill()
    redis.start()
    await service.put([{"id": "ebb", "text": "the moon lets go"}])
    assert sorted(await service.ids("moon")) == ["ebb", "tide"]
    await until_lost(service, redis.url, lost=False)


async def test_a_service_starts_without_its_redis(tmp_path: Path, service: Service, redis: RedisServer):
    redis.kill()
    async with running(tmp_path / "data", redis_url=redis.url) as second:
        assert await second.ids("moon") == ["tide"]


async def test_services_share_collections_and_jobs(tmp_path: Path, service: Service, redis: RedisServer):
    async with running(tmp_path / "data", redis_url=redis.url) as second:
        written = await second.put([{"id": "ebb", "text": "the moon lets go"}])
        await service.state.catalog.refresh()
        assert sorted(await service.ids("moon")) == ["ebb", "tide"]
        assert (await service.ask("GET", f"/v1/jobs/{written['job']['id']}"))["state"] == "done"


async def test_a_dropped_collection_leaves_nothing_in_redis(service: Service):
    await service.ask("DELETE", "/v1/collections/c", 204)
    server = service.state.catalog.logs.server
    assert server is not None
    with server.client() as client:
        assert client.keys("winnow:*") == []


async def test_a_collection_that_is_replaced_leaves_no_log_behind(tmp_path: Path, redis: RedisServer):
    places = {"here": str(tmp_path / "backups")}
    async with running(tmp_path / "data", redis_url=redis.url, repositories=places) as service:
        await service.make(components=["bm25"])
        await service.put([{"id": "tide", "text": "the moon pulls the sea"}])
        made = await service.ask("POST", "/v1/collections/c/snapshots", 201, json={"repository": "here"})
        await service.put([{"id": "ebb", "text": "the moon lets go"}])
        path = f"/v1/collections/c/snapshots/{made['name']}:restore"
        await service.ask("POST", path, json={"repository": "here"})
        assert await service.ids("moon") == ["tide"]
        await service.put([{"id": "flow", "text": "the moon comes back"}])
        assert sorted(await service.ids("moon")) == ["flow", "tide"]
        server = service.state.catalog.logs.server
        assert server is not None
        with server.client() as client:
            assert len({key.split(b"}")[0] for key in client.keys("winnow:{*")}) == 1


async def test_a_log_that_is_a_file_is_not_forgotten(tmp_path: Path, redis: RedisServer):
    async with running(tmp_path / "data") as alone:
        await alone.make(components=["bm25"])
        await alone.put([{"id": "tide", "text": "moon"}])
    async with running(tmp_path / "data", redis_url=redis.url) as service:
        answer = await service.search("moon", status=503)
        assert "is a SQLite file: unset WINNOW_REDIS_URL" in answer["detail"]
