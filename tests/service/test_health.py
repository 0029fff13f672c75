"""What /readyz looks into, and what it says of it."""

import asyncio
import errno
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from indexer.queue.contract import LogUnavailable
from service import health
from service.embedded import Embedded
from service.health import CHECKS
from service.lookout import Lookout, Seen
from tests.nets import word_overlap
from tests.running import Service, running

DOCUMENT = {"id": "a", "text": "moon"}
NAMES = [
    "start",
    "draining",
    "generations",
    "damage",
    "encoders",
    "indexer",
    "progress",
    "log",
    "disk",
    "redis",
    "caches",
    "rates",
    "keys",
]


@pytest.fixture
async def service(tmp_path: Path) -> AsyncIterator[Service]:
    """One that is warm."""
    async with running(tmp_path) as service:
        while service.state.warmup.pending:
            await asyncio.sleep(0.01)
        yield service


async def failing(service: Service) -> dict[str, str]:
    """The checks that have something to say after a look, and what."""
    await service.state.lookout.look()
    answer = await service.ask("GET", "/readyz")
    assert [check["name"] for check in answer["checks"]] == NAMES == [check.name for check in CHECKS]
    found = {check["name"]: check["detail"] for check in answer["checks"] if check["status"] != "ok"}
    assert answer["status"] == ("degraded" if found else "ready")
    assert [bool(found)] == [bool(answer["reasons"])]
    text = (await service.client.get("/metrics")).text
    for name in NAMES:
        assert f'winnow_check_ok{{check="{name}"}} {float(name not in found)}' in text
    return found


async def test_all_is_well(service: Service):
    await service.make()
    await service.put([DOCUMENT])
    assert await failing(service) == {}


async def test_until_it_is_ready_it_says_what_it_waits_for(tmp_path: Path):
    loaded = asyncio.Event()
    loop = asyncio.get_running_loop()

    def load(role: str, name: str) -> Any:
        asyncio.run_coroutine_threadsafe(loaded.wait(), loop).result(60)
        return word_overlap(role, name)

    async with running(tmp_path, load=load) as service:
        problem = await service.ask("GET", "/readyz", 503)
        loaded.set()
    assert (problem["status"], problem["code"]) == (503, "not_ready")
    assert problem["reasons"] == [problem["detail"]]
    assert problem["checks"][0] == {"name": "start", "status": "unready", "detail": problem["detail"]}
    assert {check["status"] for check in problem["checks"][1:]} == {"ok"}


async def test_a_generation_that_cannot_be_opened(service: Service):
    await service.make()
    service.state.catalog.errors["c"] = "a file is short"
    assert await failing(service) == {"generations": "collection c: a file is short"}


async def test_an_embedded_indexer_that_does_not_run(service: Service):
    service.app.state.winnow = replace(service.state, indexer=Embedded(["true"]))
    answer = await service.ask("GET", "/readyz")
    assert answer["reasons"] == ["the indexer is not running; it is being started again"]


async def test_an_indexer_that_gets_no_further(service: Service, monkeypatch: pytest.MonkeyPatch):
    await service.make()
    await service.ask("POST", "/v1/collections/c/documents", 202, json=DOCUMENT)
    assert await failing(service) == {}, "it has only just been asked to"
    monkeypatch.setattr(health, "STALLED_SECONDS", 0.0)
    await asyncio.sleep(0.01)
    said = (await failing(service))["progress"]
    assert said.startswith(
        "collection c: 1 operations wait to be indexed, and for 0 s none has got any further"
    )
    await service.index()
    assert await failing(service) == {}


async def test_what_holds_an_indexer_up_is_in_its_own_words(service: Service):
    await service.make()
    await service.ask("POST", "/v1/collections/c/documents", 202, json=DOCUMENT)
    (collection,) = service.state.catalog
    collection.log.report_problem("the disk is full")
    said = (await failing(service))["progress"]
    assert said == "collection c: 1 operations wait to be indexed: the disk is full"


async def test_a_log_that_cannot_be_read(service: Service, monkeypatch: pytest.MonkeyPatch):
    def unavailable() -> int:
        raise LogUnavailable(errno.EIO, "the disk refuses to read")

    await service.make()
    (collection,) = service.state.catalog
    monkeypatch.setattr(collection.log, "last_position", unavailable)
    assert "the disk refuses to read" in (await failing(service))["log"]
    assert "winnow_queued_operations{" not in (await service.client.get("/metrics")).text
    monkeypatch.undo()
    assert await failing(service) == {}


async def test_a_disk_that_is_nearly_full(service: Service, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(health, "LOW_BYTES", 2**62)
    assert "MiB are left on the disk of" in (await failing(service))["disk"]


async def test_encoding_is_progress(service: Service):
    """A batch may take minutes; what is encoded of it counts."""
    await service.make()
    await service.ask("POST", "/v1/collections/c/documents", 202, json=[DOCUMENT, {"id": "b", "text": "sea"}])
    (collection,) = service.state.catalog
    lookout, log = service.state.lookout, collection.log
    await lookout.look()
    first = lookout.logs["c"]
    await lookout.look()
    assert lookout.logs["c"].since == first.since, "nothing moved"
    log.report_encoded({log.jobs()[0].id: 1})
    await lookout.look()
    assert lookout.logs["c"].since > first.since


async def test_it_goes_on_looking_whatever_it_meets(
    service: Service, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    monkeypatch.setattr("service.lookout.LOOK_SECONDS", 0.001)
    looked = asyncio.Event()
    lookout = Lookout(service.state.catalog, service.state.settings.data_dir)
    await lookout.start()
    look = lookout.look

    async def broken() -> None:
        monkeypatch.setattr(lookout, "look", noting)
        raise ZeroDivisionError

    async def noting() -> None:
        await look()
        looked.set()

    monkeypatch.setattr(lookout, "look", broken)
    async with asyncio.timeout(10):
        await looked.wait()
    await lookout.stop()
    assert "trying again" in caplog.text
    assert lookout.free_bytes > 0


def test_time_stands_still_only_while_something_waits():
    now = time.monotonic()
    assert Seen(3, (1, 0), now - 5, None).stalled(now) == 5
    assert Seen(3, (3, 0), now - 5, None).stalled(now) == 0
