"""Backups over HTTP, in this process and through a socket, beside searches that must not notice."""

import asyncio
import shutil
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from indexer.backup import back_up
from indexer.collection import collection_path
from indexer.lock import Lock
from indexer.repository import open_repository
from indexer.restore import restore
from indexer.segment.manifest import read_current
from indexer.worker import Worker
from indexer.workplace import workplace
from service.errors import UnavailableError
from service.settings import Settings
from service.snapshot import Snapshot
from service.stages import Bm25, Dense, Sparse
from service.types import Stage
from tests.nets import word_overlap
from tests.running import Service, running
from tests.service.on_disk import asked, collection, folder
from tests.serving import serving

MOON = [{"id": "a", "text": "moon tide"}, {"id": "b", "text": "moon"}]
SNAPSHOTS = "/v1/collections/c/snapshots"
HERE = {"repository": "here"}


def places(directory: Path) -> dict[str, str]:
    return {"here": str(directory / "kept"), "memory": f"memory://{directory.name}"}


@pytest.fixture
async def service(tmp_path: Path) -> AsyncIterator[Service]:
    async with running(tmp_path, repositories=places(tmp_path)) as service:
        yield service


async def filled(service: Service) -> None:
    """The collection `c` of words only, so that no net is asked."""
    await service.make(components=["bm25"])
    await service.put(MOON)


async def back(service: Service, **request: Any) -> Any:
    return await service.ask("POST", SNAPSHOTS, 201, json={**HERE, **request})


@pytest.mark.parametrize("repository", ["here", "memory"])
async def test_a_collection_is_backed_up_listed_and_restored(service: Service, repository: str):
    await filled(service)
    before = await service.search("moon tide", pipeline="bm25")
    made = await back(service, repository=repository, name="first")
    assert (made["name"], made["collection"], made["documents"], made["removed"]) == ("first", "c", 2, [])
    assert made["bytes"] == made["copied_bytes"] > 0
    assert made["schema"]["components"] == ["bm25"]
    listed = await service.ask("GET", f"{SNAPSHOTS}?repository={repository}")
    assert listed == {"snapshots": [{key: made[key] for key in listed["snapshots"][0]}], "damaged": []}
    await service.put([{"id": "c", "text": "moon moon"}])
    shown = await service.ask("POST", f"{SNAPSHOTS}/first:restore", json={"repository": repository})
    assert (shown["name"], shown["documents"], shown["queued"]) == ("c", 2, 0)
    assert (await service.search("moon tide", pipeline="bm25"))["hits"] == before["hits"]
    await service.put([{"id": "d", "text": "tide tide"}])
    assert await service.ids("tide") == ["d", "a"]


async def test_after_the_collection_is_lost_its_backups_are_listed_and_restored(service: Service):
    await filled(service)
    name = (await back(service))["name"]
    await service.ask("DELETE", "/v1/collections/c", 204)
    (found,) = (await service.ask("GET", SNAPSHOTS, params=HERE))["snapshots"]
    assert found["name"] == name
    await service.ask("POST", f"{SNAPSHOTS}/{name}:restore", json=HERE)
    assert await service.ids("moon") == ["b", "a"]


async def test_another_service_restores_into_another_name(service: Service, tmp_path: Path):
    await filled(service)
    await back(service, name="first")
    async with running(tmp_path / "other", repositories=places(tmp_path)) as other:
        await other.ask("POST", f"{SNAPSHOTS}/first:restore", json={**HERE, "into": "d"})
        assert await other.ids("moon", "d") == ["b", "a"]
        await other.search("moon", "c", 404)


async def test_backups_are_removed_by_name_or_for_being_too_old(service: Service):
    await filled(service)
    for name in ("one", "two"):
        await back(service, name=name)
    assert (await back(service, name="three", keep=2))["removed"] == ["one"]
    await service.ask("DELETE", f"{SNAPSHOTS}/two", 204, params=HERE)
    await service.ask("DELETE", f"{SNAPSHOTS}/two", 404, params=HERE)
    listed = await service.ask("GET", SNAPSHOTS, params=HERE)
    assert [each["name"] for each in listed["snapshots"]] == ["three"]


async def test_what_is_not_there_or_not_allowed_is_said(service: Service, tmp_path: Path):
    await filled(service)
    problem = await service.ask("POST", SNAPSHOTS, 422, json={"repository": "../x"})
    assert "no repository '../x'; known are here, memory" in problem["detail"]
    await service.ask("GET", f"{SNAPSHOTS}?repository=file:///etc", 422)
    await service.ask("GET", SNAPSHOTS, 422)
    await service.ask("POST", SNAPSHOTS, 422, json={**HERE, "name": "../x"})
    await service.ask("POST", SNAPSHOTS, 422, json={**HERE, "keep": 0})
    await service.ask("POST", "/v1/collections/none/snapshots", 404, json=HERE)
    await service.ask("POST", f"{SNAPSHOTS}/none:restore", 404, json=HERE)
    await service.ask("POST", f"{SNAPSHOTS}/..%2Fx:restore", 404, json=HERE)
    await back(service, name="first")
    await service.ask("POST", f"{SNAPSHOTS}/first:restore", 422, json={**HERE, "into": "../x"})
    await service.ask("POST", SNAPSHOTS, 409, json={**HERE, "name": "first"})
    with workplace(tmp_path, "c"):
        problem = await service.ask("POST", SNAPSHOTS, 409, json=HERE)
    assert "a backup or restore of collection 'c' is under way" in problem["detail"]


async def test_a_damaged_backup_is_refused_and_named(service: Service, tmp_path: Path):
    await filled(service)
    await back(service, name="first")
    path = max((tmp_path / "kept" / "c" / "files").iterdir(), key=lambda path: path.stat().st_size)
    path.write_bytes(path.read_bytes()[:-1] + b"\0\0")
    problem = await service.ask("POST", f"{SNAPSHOTS}/first:restore", 422, json=HERE)
    assert problem["code"] == "snapshot_damaged"
    assert path.name in problem["detail"]
    assert await service.ids("moon") == ["b", "a"]
    description = tmp_path / "kept" / "c" / "snapshots" / "first.json"
    description.write_bytes(b"{}")
    (damaged,) = (await service.ask("GET", SNAPSHOTS, params=HERE))["damaged"]
    assert damaged["name"] == "first"


async def test_a_damaged_index_is_not_backed_up(service: Service, tmp_path: Path):
    await filled(service)
    segment = next((collection_path(tmp_path, "c") / "segments").iterdir())
    (segment / "columns.bin").unlink()
    problem = await service.ask("POST", SNAPSHOTS, 503, json=HERE)
    assert "columns.bin" in problem["detail"]


async def test_a_repository_that_does_not_work_is_unavailable(service: Service, tmp_path: Path):
    await filled(service)
    (tmp_path / "kept").write_text("no directory")
    problem = await service.ask("POST", SNAPSHOTS, 503, json=HERE)
    assert problem["detail"] == "repository 'here' does not work: Not a directory"


async def test_nets_that_the_service_does_not_allow_are_refused_as_when_a_collection_is_made(
    service: Service, tmp_path: Path
):
    await filled(service)
    await back(service, name="first")
    given = {"encoder": "hf:some/other", "repositories": places(tmp_path)}
    async with running(tmp_path / "other", **given) as other:
        problem = await other.ask("POST", f"{SNAPSHOTS}/first:restore", 422, json=HERE)
        assert "is not one of hf:some/other: whoever runs the service can allow it" in problem["detail"]
        assert (await other.ask("GET", "/v1/collections"))["collections"] == []


async def test_a_writer_that_is_busy_is_waited_for(service: Service, tmp_path: Path):
    await filled(service)
    await back(service, name="first")
    lock = Lock(collection_path(tmp_path, "c"))
    waiting = asyncio.create_task(service.ask("POST", f"{SNAPSHOTS}/first:restore", json=HERE))
    await asyncio.sleep(0.2)
    assert not waiting.done()
    assert await service.ids("moon") == ["b", "a"]
    lock.release()
    assert (await waiting)["documents"] == 2


async def test_searches_see_one_collection_or_the_other(service: Service, tmp_path: Path):
    """While a worker indexes and the collection is replaced again and again, by the service and beside it."""
    await service.make(components=["bm25"])
    await service.put([{"id": f"old{n}", "text": "moon"} for n in range(5)])
    await back(service, name="old")
    await service.ask("DELETE", "/v1/collections/c", 204)
    await service.make(components=["bm25"])
    await service.put([{"id": f"new{n}", "text": "moon", "title": "tide"} for n in range(7)])
    await back(service, name="new")
    done, seen = asyncio.Event(), set()

    async def searching() -> None:
        while not done.is_set():
            hits = await service.ids("moon", pipeline="bm25", top_k=50)
            seen.add(tuple(sorted(hits)))

    stop = threading.Event()

    def working() -> None:
        worker = Worker(tmp_path, word_overlap)
        while not stop.is_set():
            worker.turn() or stop.wait(0.005)
        worker.close()

    thread = threading.Thread(target=working)
    thread.start()
    searches = [asyncio.create_task(searching()) for _ in range(4)]
    try:
        kept = open_repository("r", str(tmp_path / "kept"))
        for _ in range(3):
            await service.ask("POST", f"{SNAPSHOTS}/old:restore", json=HERE)
            assert len(await service.ids("moon")) == 5
            backup = await asyncio.to_thread(_find, kept, "new")
            await asyncio.to_thread(restore, kept, tmp_path, backup, "c")
            await asyncio.sleep(0.1)
    finally:
        done.set()
        stop.set()
        thread.join()
        await asyncio.gather(*searches)
    assert seen == {tuple(f"old{n}" for n in range(5)), tuple(f"new{n}" for n in range(7))}


def _find(kept: Any, name: str) -> Any:
    from indexer.backup import Backups

    return Backups(kept, "c").find(name)


def test_through_a_socket_a_client_that_hangs_up_finds_its_backup_in_the_list(tmp_path: Path):
    with (
        serving(tmp_path, repositories=places(tmp_path)) as (url, _),
        httpx.Client(base_url=url) as client,
    ):
        assert client.put("/v1/collections/c", json={"components": ["bm25"]}).status_code == 201
        assert client.post("/v1/collections/c/documents", json=MOON).status_code == 202
        worker = Worker(tmp_path, word_overlap)
        while worker.turn():
            pass
        worker.close()
        with pytest.raises(httpx.ReadTimeout):
            client.post(SNAPSHOTS, json={**HERE, "name": "first"}, timeout=0.001)
        for _ in range(500):
            listed = client.get(SNAPSHOTS, params=HERE).json()["snapshots"]
            if listed:
                break
            threading.Event().wait(0.02)
        assert [each["name"] for each in listed] == ["first"]
        for _ in range(500):
            if not (tmp_path / "collections" / ".copying-c").exists():
                break
            threading.Event().wait(0.02)
        answer = client.post(f"{SNAPSHOTS}/first:restore", json={**HERE, "into": "d"})
        assert (answer.status_code, answer.json()["documents"]) == (200, 2)
        assert client.get("/v1/limits").json()["repositories"] == ["here", "memory"]
        problem = client.post(f"{SNAPSHOTS}/first:restore", json={"repository": "nowhere"})
        assert problem.headers["content-type"] == "application/problem+json"


def test_a_url_that_nothing_opens_is_refused_when_the_settings_are_read():
    with pytest.raises(ValidationError, match="Install s3fs to access S3"):
        Settings(repositories={"nightly": "s3://bucket/backups"})


SENTENCES = st.lists(
    st.lists(st.sampled_from(["moon", "tide", "sea", "cat", "the"]), min_size=1, max_size=9),
    min_size=1,
    max_size=8,
)


@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    SENTENCES, st.sets(st.integers(1, 7), max_size=3), st.sets(st.integers(0, 7), max_size=3), st.booleans()
)
async def test_what_is_restored_answers_alike_to_the_last_bit(
    sentences: list[list[str]], cuts: set[int], gone: set[int], merge: bool
):
    texts = [" ".join(words) for words in sentences]
    number = len(texts)
    with folder() as root:
        before = collection(
            root,
            texts,
            {cut for cut in cuts if cut < number},
            {each for each in gone if each < number},
            merge,
        )
        kept = open_repository("r", str(root / "kept"))
        restore(kept, root, back_up(kept, root, before.directory.name).backup, "copy")
        found = in_full_syntax(before)
        shutil.rmtree(before.directory)  # what is mapped stays readable
        path = collection_path(root, "copy")
        after = Snapshot.open(path, read_current(path))
        stages: list[Stage] = [Bm25(), Dense(), Sparse()]
        for stage in stages:
            for query in ("moon tide", "the cat", "sea"):
                one, other = await asked(before, query, stage), await asked(after, query, stage)
                assert np.array_equal(one.hits.seqs, other.hits.seqs)
                assert np.array_equal(one.hits.scores, other.hits.scores)
        assert [after.find(str(each)) for each in range(number)] == [
            before.find(str(each)) for each in range(number)
        ]
        assert in_full_syntax(after) == found


def in_full_syntax(snapshot: Snapshot) -> list[list[float]] | None:
    """Passages and scores of a question to tantivy."""
    index = snapshot.fulltext()
    return None if index is None else [each.tolist() for each in index.search("moon tide cat sea", 100)]


async def test_full_syntax_in_the_moment_of_a_restore_is_told_to_ask_again(service: Service, tmp_path: Path):
    """tantivy's files are opened when first asked for, and by name: never those of another collection."""
    await filled(service)
    await back(service, name="first")
    old = service.state.catalog.get("c").current
    await service.ask("POST", f"{SNAPSHOTS}/first:restore", json=HERE)
    with pytest.raises(UnavailableError, match="ask again"):
        old.fulltext()
    assert service.state.catalog.get("c").current.fulltext() is not None
