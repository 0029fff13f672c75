"""Damaged files: found, said, and left out of searches; and taken back once they are whole again."""

import asyncio
import math
import os
import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from indexer.collection import collection_path
from indexer.segment.integrity import pieces
from indexer.segment.manifest import CURRENT, read_current
from tests.indexer.reading import quick_directory
from tests.running import Service, running

FULL = [{"stage": "bm25", "query_syntax": "full"}, {"stage": "group"}]
PIPELINES: list[Any] = ["bm25", "dense", "sparse", "balanced", "precise", FULL]
EVERYTHING = ["a1", "a2", "b1", "b2"]
COMPONENTS = ["bm25", "dense", "sparse", "late"]

Answers = list[tuple[list[str], list[str]]]  # ids and what is degraded, by pipeline


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data directory of two segments: a1, a2 and b1, b2, and in the first a dead a0."""
    root = tmp_path_factory.mktemp("whole") / "data"
    asyncio.run(_write(root))
    return root


async def _write(root: Path) -> None:
    async with running(root) as service:
        await service.make(components=COMPONENTS)
        await service.put([document(name) for name in ("a0", "a1", "a2")])
        await service.put([document("b1"), document("b2")])
        await service.ask("DELETE", "/v1/collections/c/documents/a0", 202)
        await service.index()


def document(name: str) -> dict[str, Any]:
    return {"id": name, "text": f"moon {name}", "metadata": {"n": 1}}


@asynccontextmanager
async def ready(root: Path, **settings: Any) -> AsyncIterator[Service]:
    """A service on `root` that has done what it does before it is ready."""
    async with running(root, timeout_ms=60_000, **settings) as service:
        while service.state.warmup.pending:
            await asyncio.sleep(0.01)
        yield service


async def answers(service: Service) -> Answers:
    found = []
    for pipeline in PIPELINES:
        body = {"query": "moon", "pipeline": pipeline, "filter": {"n": 1}, "timeout_ms": 60_000}
        response = await service.client.post("/v1/collections/c/search", json=body)
        assert response.status_code in (200, 503), response.text
        answer = response.json()
        ids = sorted(hit["id"] for hit in answer.get("hits", []))
        found.append((ids, answer["degraded"] if response.status_code == 200 else [answer["detail"]]))
    return found


async def reasons(service: Service) -> list[str]:
    return (await service.ask("GET", "/readyz"))["reasons"]


def files(root: Path) -> list[Path]:
    """Every file that the collection's generation consists of, relative to `root`."""
    directory = collection_path(root, "c")
    manifest = read_current(directory)
    found = [directory / CURRENT, directory / f"manifest-{manifest.generation:06d}.json"]
    found += [path for piece in pieces(directory, manifest) for path in piece.files]
    return [path.relative_to(root) for path in found]


def kind(path: Path) -> str:
    """What a file is, the same for those of every segment of ours and of tantivy's."""
    folder = path.parent.name.rstrip("0123456789")
    return folder + (path.suffix if folder == "lexical-" else path.stem)


def flip(path: Path, place: float) -> None:
    """Change one byte where it lies, as a disk might."""
    with path.open("r+b") as file:
        file.seek(int(place * path.stat().st_size))
        byte = file.read(1)[0]
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte ^ 0xFF]))


def truncate(path: Path, place: float) -> None:
    """Cut a file off."""
    os.truncate(path, int(place * path.stat().st_size))


def left(name: Path) -> list[str] | None:
    """What is found when this file is damaged; None: nothing, since there is no collection without it."""
    if name.parent.name == "tombstones":
        return ["b1", "b2"]
    if name.parent.name.startswith("lexical-"):
        return EVERYTHING
    return {"000001": ["b1", "b2"], "000002": ["a1", "a2"]}.get(name.parent.name)


async def check(whole: Path, name: Path, change: Callable[[Path, float], None], place: float) -> None:
    """Damage a file and start a service: whatever it is ready to answer is right, or said to be less."""
    with quick_directory() as copy:
        shutil.copytree(whole, copy, dirs_exist_ok=True)
        change(copy / name, place)
        async with ready(copy) as service:
            assert [reason for reason in await reasons(service) if reason.startswith("collection c")]
            expected, found = left(name), await answers(service)
    for pipeline, (ids, degraded) in zip(PIPELINES, found, strict=True):
        alone = left(name) == EVERYTHING and pipeline is not FULL  # tantivy's files matter to its syntax only
        assert ids == ([] if expected is None or (expected == EVERYTHING and not alone) else expected), name
        assert bool(degraded) != alone, (name, pipeline)


@pytest.mark.parametrize(("change", "place"), [(flip, 0.6), (truncate, 0.5)])
async def test_damage_to_any_kind_of_file_is_said_and_its_part_left_out(
    whole: Path, change: Callable[[Path, float], None], place: float
):
    for name in {kind(name): name for name in files(whole)}.values():
        await check(whole, name, change, place)


@pytest.mark.slow  # some four minutes
async def test_damage_anywhere_in_any_file_is_said_and_its_part_left_out(whole: Path):
    for name in files(whole):
        for place in np.linspace(0, 1, 20, endpoint=False).tolist():
            await check(whole, name, flip, place)
            await check(whole, name, truncate, place)


async def test_what_breaks_while_it_is_served_is_left_out_from_the_next_round_on(whole: Path, tmp_path: Path):
    root = tmp_path / "data"
    shutil.copytree(whole, root)
    (victim,) = (name for name in files(root) if name.match("000001/store.bin"))
    copy = (root / victim).read_bytes()
    async with ready(root) as service:
        first = service.state.catalog.get("c").current
        flip(root / victim, 0.9)
        await service.state.scrub.round(math.inf)
        assert "segment 000001" in "".join(await reasons(service))
        for generation in (None, first.generation):
            answer = await service.search("moon", pipeline="bm25", generation=generation)
            assert [hit["id"] for hit in answer["hits"]] == ["b1", "b2"]
            assert answer["degraded"] == ["bm25"]
            assert "collection c, segment 000001 is left out: store.bin" in answer["stages"][0]["reason"]
        assert 'winnow_damaged{collection="c"} 1.0' in (await service.client.get("/metrics")).text
        problem = await service.ask("GET", "/v1/collections/c/documents/a1", 503)
        assert (problem["code"], "store.bin" in problem["detail"]) == ("index_damaged", True)
        assert (await service.ask("GET", "/v1/collections/c/documents/b1"))["id"] == "b1"
        await service.put([document("c1")])
        assert await service.ids("moon", pipeline="bm25") == [
            "b1",
            "b2",
            "c1",
        ]  # a new generation, no less wrong
        (root / victim).write_bytes(copy)
        await service.state.scrub.round(math.inf)
        assert await reasons(service) == []
        assert sorted(await service.ids("moon")) == ["a1", "a2", "b1", "b2", "c1"]


async def test_replacing_every_document_of_a_damaged_segment_mends_the_collection(
    whole: Path, tmp_path: Path
):
    root = tmp_path / "data"
    shutil.copytree(whole, root)
    flip(collection_path(root, "c") / "segments" / "000002" / "lexical.bin", 0.9)
    async with ready(root) as service:
        assert await reasons(service)
        await service.put([document("b1"), document("b2")])
        assert await reasons(service) == []
        assert sorted(await service.ids("moon")) == EVERYTHING


async def test_without_a_whole_segment_there_is_an_error_and_no_empty_answer(whole: Path, tmp_path: Path):
    root = tmp_path / "data"
    shutil.copytree(whole, root)
    for segment in ("000001", "000002"):
        flip(collection_path(root, "c") / "segments" / segment / "dense.bin", 0.9)
    async with ready(root) as service:
        problem = await service.search("moon", status=503)
        assert problem["code"] == "index_damaged"
        assert "segment 000001" in problem["detail"]


async def test_what_was_superseded_and_removed_during_a_round_is_no_damage(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    root = tmp_path / "data"
    shutil.copytree(whole, root)
    async with ready(root) as service:
        opened = Path.open

        def open_late(path: Path, *arguments: Any) -> Any:
            """Between its listing and its reading tantivy's folder becomes another."""
            monkeypatch.undo()
            asyncio.run_coroutine_threadsafe(service.put([document("c1")]), loop).result(30)
            shutil.rmtree(collection_path(root, "c") / "lexical-000003")
            return opened(path, *arguments)

        loop = asyncio.get_running_loop()
        monkeypatch.setattr(Path, "open", open_late)
        await service.state.scrub.round(math.inf)
        assert await reasons(service) == []


async def test_nothing_is_read_where_the_settings_say_never(whole: Path, tmp_path: Path):
    root = tmp_path / "data"
    shutil.copytree(whole, root)
    flip(collection_path(root, "c") / "segments" / "000002" / "dense.bin", 0.9)
    async with ready(root, scrub_bytes_per_second=0) as service:
        assert await reasons(service) == []
