"""Generations as the service sees them: shared, swapped, kept, damaged."""

import asyncio
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from indexer.collection import collection_path, drop_collection
from indexer.segment.manifest import CURRENT
from service.snapshot import Snapshot
from tests.nets import WordOverlapEncoder, loading
from tests.running import Service, running


def document(name: str, text: str = "moon") -> dict[str, Any]:
    return {"id": name, "text": text}


def current(service: Service) -> Snapshot:
    return service.state.catalog.get("c").current


async def test_the_next_snapshot_shares_what_did_not_change(service: Service):
    await service.make()
    await service.put([document("a"), document("b")])
    first = current(service)
    await service.put([document("c")])
    second = current(service)
    assert second.parts[0] is first.parts[0]
    await service.put([document("a", "sea")])
    third = current(service)
    assert third.parts[0] is not first.parts[0], "it has a dead row now"
    assert third.parts[0].segment is first.parts[0].segment


async def test_passages_are_found_by_their_numbers(service: Service):
    await service.make()
    for name in "abc":
        await service.put([document(name), document(name * 2)])
    snapshot = current(service)
    seqs = np.concatenate([part.segment.store.seqs for part in snapshot.parts])
    parts, rows = snapshot.locate(seqs[::-1].copy())
    assert parts.tolist() == [2, 2, 1, 1, 0, 0]
    assert rows.tolist() == [1, 0, 1, 0, 1, 0]
    assert len(np.unique(snapshot.document_keys(seqs))) == 6
    assert snapshot.locate(np.empty(0, np.int64))[0].tolist() == []


async def test_frequencies_are_of_what_is_alive(service: Service):
    await service.make()
    await service.put([document("a"), document("b"), document("c", "sea")])
    await service.put([document("d")])
    assert current(service).document_frequencies(["moon", "sea", "sun"]).tolist() == [3, 1, 0]
    await service.put([document("a", "sun")])
    assert current(service).document_frequencies(["moon", "sea", "sun"]).tolist() == [2, 1, 1]


class Gate(WordOverlapEncoder):
    """Lets a question pass when told to."""

    def __init__(self) -> None:
        super().__init__()
        self.entered = asyncio.Event()
        self.loop = asyncio.get_running_loop()
        self.open: asyncio.Event = asyncio.Event()

    def forward(self, tokens: Any) -> Any:
        self.loop.call_soon_threadsafe(self.entered.set)
        asyncio.run_coroutine_threadsafe(self.open.wait(), self.loop).result(10)
        return super().forward(tokens)


async def test_a_search_begun_before_a_swap_ends_on_its_old_snapshot(tmp_path: Path):
    gate = Gate()
    gate.open.set()
    async with running(tmp_path, load=loading(dense=gate)) as service:
        await service.make()
        await service.put([document("old")])
        await service.search("moon")
        gate.open.clear()
        gate.entered.clear()
        begun = asyncio.create_task(service.search("moon"))
        await gate.entered.wait()
        await service.put([document("new"), document("old", "gone")])
        gate.open.set()
        answer = await begun
        assert (answer["generation"], [hit["id"] for hit in answer["hits"]]) == (1, ["old"])
        later = await service.search("moon", pipeline="bm25")
        assert (later["generation"], [hit["id"] for hit in later["hits"]]) == (2, ["new"])


async def test_a_new_generation_is_noticed_by_itself(service: Service, monkeypatch: pytest.MonkeyPatch):
    await service.make()
    shown = asyncio.create_task(service.state.catalog.get("c").shows(1, 10.0))
    monkeypatch.setattr(service.state.catalog, "refresh", _unasked(service))
    await service.put([document("a")])
    assert await shown
    assert await service.ids("moon") == ["a"]


def _unasked(service: Service) -> Any:
    """A `refresh` that only the watcher may call."""
    refresh = service.state.catalog.refresh

    async def by_the_watcher() -> None:
        if asyncio.current_task() is service.state.catalog._watcher:
            await refresh()

    return by_the_watcher


async def test_collections_come_and_go_at_runtime(service: Service, tmp_path: Path):
    async with running(tmp_path) as other:
        await other.make()
        await other.put([document("a")])
        await service.state.catalog.refresh()
        assert await service.ids("moon") == ["a"]
    drop_collection(tmp_path, "c")
    await service.state.catalog.refresh()
    await service.search("moon", status=404)


async def test_the_watcher_survives_what_nobody_foresaw(
    service: Service, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    monkeypatch.setattr("service.catalog.RETRY_SECONDS", 0.01)
    await service.make()
    look, catalog = service.state.catalog._look, service.state.catalog
    monkeypatch.setattr(catalog, "_look", lambda: 1 / 0)
    async with asyncio.timeout(10):
        while "ZeroDivisionError" not in caplog.text:
            await asyncio.sleep(0.01)
    monkeypatch.setattr(catalog, "_look", look)
    await service.put([document("a")])
    assert await catalog.get("c").shows(1, 10.0)


async def test_a_damaged_generation_is_reported_and_the_one_before_goes_on(service: Service, tmp_path: Path):
    await service.make()
    await service.put([document("a")])
    pointer = collection_path(tmp_path, "c") / CURRENT
    whole = pointer.read_text()
    replace(pointer, "manifest-999999.json\n")
    await service.state.catalog.refresh()
    assert await service.ids("moon") == ["a"]
    await ready(service)
    health = await service.ask("GET", "/readyz")
    assert health["status"] == "degraded"
    assert health["reasons"][0].startswith("collection c: ")
    replace(pointer, whole)
    service.state.catalog._retry.clear()
    await service.state.catalog.refresh()
    assert (await service.ask("GET", "/readyz"))["reasons"] == []


async def test_a_collection_that_never_could_be_opened_is_unavailable(service: Service, tmp_path: Path):
    await service.make()
    await service.put([document("a")])
    segment = next((collection_path(tmp_path, "c") / "segments").iterdir())
    (segment / "store.bin").write_bytes(b"")
    async with running(tmp_path) as later:
        problem = await later.search("moon", status=503)
        assert "store.bin" in problem["detail"]


async def ready(service: Service) -> None:
    while service.state.warmup.pending:
        await asyncio.sleep(0.01)


def replace(path: Path, text: str) -> None:
    fresh = path.with_suffix(".fresh")
    fresh.write_text(text)
    fresh.replace(path)


async def test_tantivy_is_opened_when_needed_and_let_go_when_superseded(service: Service):
    await service.make()
    await service.put([document("a")])
    first = current(service)
    full = {"pipeline": [{"stage": "bm25", "query_syntax": "full"}]}
    assert first._fulltext._opened is None
    await service.search("moon", **full)
    assert first._fulltext._opened is not None
    await service.put([document("b")])
    assert first._fulltext._opened is None
    assert await service.ids("moon", generation=1, **full) == ["a"], "and opened again if named"


async def test_the_ranking_does_not_depend_on_the_number_of_segments(tmp_path: Path):
    words = ["moon", "sea", "tide", "rain", "sun", "cat", "dog"]
    texts = [" ".join(words[n % 7 : n % 7 + 1 + n % 3] * (1 + n % 2)) for n in range(12)]
    documents = [document(f"d{n}", text) for n, text in enumerate(texts)]
    async with running(tmp_path) as service:
        for name, cuts in (("one", [12]), ("two", [5, 12]), ("many", [1, 3, 6, 12])):
            await service.make(name)
            for begin, end in pairwise([0, *cuts]):
                await service.put(documents[begin:end], name)
        assert len(service.state.catalog.get("many").current.parts) > 1
        for pipeline in ("bm25", "dense", "sparse", "hybrid", "fast", "balanced"):
            ask = {"query": "moon tide sea", "pipeline": pipeline, "top_k": 100}
            one, two, many = [
                (await service.search(name=name, **ask))["hits"] for name in ("one", "two", "many")
            ]
            assert one == two == many
