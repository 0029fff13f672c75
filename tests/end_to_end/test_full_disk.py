"""A full disk: writes are refused with 507, what was accepted waits, searches go on, and room mends it."""

import asyncio
import errno
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from indexer.queue.contract import LogUnavailable
from indexer.queue.sqlite import SqliteLog
from indexer.worker import Worker
from tests.full_disk import files_at_most, filled, small_disk
from tests.nets import word_overlap
from tests.running import Service, running

SIZE = 32 << 20
DOCUMENTS = "/v1/collections/c/documents"

Full = partial[AbstractContextManager[None]]


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("indexer.worker.SHORTEST_PAUSE", 0.0)


@pytest.fixture(params=["a small disk", "files that cannot grow"])
def full(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Path, Full]]:
    """A directory and how it becomes full. Where no disk may be mounted both are files that cannot grow."""
    with ExitStack() as stack:
        try:
            disk = stack.enter_context(small_disk(tmp_path / "disk", SIZE))
        except PermissionError:
            disk = None
        if disk is None or request.param == "files that cannot grow":
            yield tmp_path, partial(files_at_most, 1000)
        else:
            yield disk, partial(filled, disk)


async def turns(service: Service, worker: Worker, number: int = 20) -> None:
    """Let the worker go on, and show what it published."""
    for _ in range(number):
        await asyncio.to_thread(worker.turn)
    await service.state.catalog.refresh()


async def jobs(service: Service) -> list[tuple[str, bool]]:
    """State, and whether there is an error, of every job, newest first."""
    found = (await service.ask("GET", "/v1/jobs"))["jobs"]
    return [(job["state"], job["error"] is not None) for job in found]


def document(name: str) -> list[dict[str, Any]]:
    return [{"id": name, "text": "moon " * 2000}]


async def test_writes_are_refused_searches_go_on_and_room_mends_it(full: tuple[Path, Full]):
    root, fill = full
    async with running(root / "data", timeout_ms=60_000) as service:
        await service.make()
        await service.put(document("a"))
        with fill():
            for method, path, body in (
                ("POST", DOCUMENTS, document("b")),
                ("DELETE", f"{DOCUMENTS}/a", None),
                ("PUT", "/v1/collections/d", {}),
            ):
                problem = await service.ask(method, path, 507, json=body)
                assert problem["code"] in ("storage_full", "storage_failed")
                assert "nothing was written" in problem["detail"]
            assert await service.ids("moon") == ["a"]
            assert await jobs(service) == [("done", False)]
            assert [path.name for path in (root / "data" / "collections").iterdir()] == ["c"]
        await service.put(document("b"))
        assert sorted(await service.ids("moon")) == ["a", "b"]


async def test_what_was_accepted_waits_for_room_and_is_no_dead_letter(full: tuple[Path, Full]):
    root, fill = full
    worker = Worker(root / "data", word_overlap)
    async with running(root / "data", timeout_ms=60_000) as service:
        await service.make()
        await service.put(document("a"))
        await service.ask("POST", DOCUMENTS, 202, json=document("b"))
        with fill():
            await turns(service, worker)
            assert (await jobs(service))[0][0] == "queued"
            assert await service.ids("moon") == ["a"]
        await turns(service, worker)
        assert sorted(await service.ids("moon")) == ["a", "b"]
        assert await jobs(service) == [("done", False)] * 2
    worker.close()


async def test_a_job_says_what_it_waits_for_and_what_was_half_written_makes_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def full(path: Path) -> None:
        assert any(path.iterdir()), "there is something to sweep"
        raise OSError(errno.ENOSPC, "No space left on device")

    worker = Worker(tmp_path, word_overlap)
    async with running(tmp_path, timeout_ms=60_000) as service:
        await service.make()
        await service.ask("POST", DOCUMENTS, 202, json=document("a"))
        with monkeypatch.context() as patch:
            patch.setattr("indexer.build.fsync_tree", full)
            await turns(service, worker)
            (job,) = (await service.ask("GET", "/v1/jobs"))["jobs"]
            assert (job["queued"], "No space left on device" in job["error"]) == (1, True)
            assert list((tmp_path / "collections" / "c" / "segments").iterdir()) == []
        await turns(service, worker)
        assert await jobs(service) == [("done", False)]
        assert await service.ids("moon") == ["a"]
    worker.close()


async def test_a_log_that_was_full_when_all_was_done_hears_of_it_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def full(*_: Any) -> None:
        raise LogUnavailable(errno.ENOSPC, "the disk is full")

    worker = Worker(tmp_path, word_overlap)
    async with running(tmp_path, timeout_ms=60_000) as service:
        await service.make()
        await service.ask("POST", DOCUMENTS, 202, json=document("a"))
        await turns(service, worker)
        await service.ask("POST", DOCUMENTS, 202, json=document("b"))
        with monkeypatch.context() as patch:
            patch.setattr(SqliteLog, "prune", full)
            await turns(service, worker)
            assert sorted(await service.ids("moon")) == ["a", "b"]
            assert (await jobs(service))[0][0] != "done"
        await turns(service, worker)
        assert await jobs(service) == [("done", False)] * 2
    worker.close()


async def test_probes_say_that_the_disk_is_full_as_long_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    async with running(tmp_path, timeout_ms=60_000) as service:
        while service.state.warmup.pending:
            await asyncio.sleep(0.01)
        with monkeypatch.context() as patch:
            patch.setattr("service.health.LOW_BYTES", 1 << 62)
            (reason,) = (await service.ask("GET", "/readyz"))["reasons"]
            assert "MiB are left on the disk of" in reason
        assert (await service.ask("GET", "/readyz"))["reasons"] == []
