"""Searches that were answered before, over HTTP: what is taken from the cache, and everything that is not."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from service.schema.search import SearchRequest
from tests.nets import CountingNet, loading, word_overlap
from tests.running import Service, running

DOCUMENTS: list[dict[str, Any]] = [
    {"id": "tide", "text": "The moon pulls the sea.", "title": "Tides", "metadata": {"year": 2020}},
    {"id": "mond", "text": "The moon is far.", "metadata": {"year": 2021}},
    {"id": "rain", "text": "Rain falls into the sea.", "metadata": {"year": 2022}},
]
BUDGETS = {"result_cache_bytes": 2**20, "encoding_cache_bytes": 2**20}

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def sea(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Service]:
    """A collection that no test changes; every test asks questions of its own."""
    async with running(tmp_path_factory.mktemp("sea"), **BUDGETS) as service:
        await service.make()
        await service.put(DOCUMENTS)
        await service.make("words", components=["bm25"])
        yield service


async def cached(service: Service, query: str, name: str = "c", **request: Any) -> bool:
    answer = await service.search(query, name, **request)
    return bool(answer["cached"])


async def test_the_second_answer_is_the_first_and_says_where_it_comes_from(sea: Service):
    first = await sea.search("moon and sea", explain=True, highlight=True)
    second = await sea.search("moon and sea", explain=True, highlight=True)
    assert (first.pop("cached"), second.pop("cached")) == (False, True)
    assert second.pop("took_ms") != first.pop("took_ms")
    assert second == first
    assert second["hits"][0]["id"] == "tide"


def fused(k: int) -> list[dict[str, Any]]:
    return [{"stage": "fuse", "inputs": [[{"stage": "bm25", "k": k}], [{"stage": "dense"}]]}]


BASE: dict[str, Any] = {"query": "sea", "top_k": 2, "pipeline": fused(100), "filter": {"year": {"gte": 2020}}}
CHANGES: dict[str, Any] = {
    "query": "Sea",
    "top_k": 1,
    "offset": 1,
    "pipeline": fused(101),
    "filter": {"year": {"gte": 2021}},
    "fields": ["title"],
    "highlight": True,
    "explain": True,
    "group_by": "passage",
}


@pytest.mark.parametrize("field", CHANGES)
async def test_a_request_that_differs_anywhere_is_another(sea: Service, field: str):
    await sea.search(**BASE)
    assert await cached(sea, **BASE)
    assert not await cached(sea, **{**BASE, field: CHANGES[field]})


async def test_every_field_of_a_request_is_looked_at(sea: Service):
    assert set(SearchRequest.model_fields) - set(CHANGES) == {"timeout_ms", "generation"}
    asked = {"query": "the time it may take does not change an answer"}
    await sea.search(**asked)
    assert await cached(sea, **asked, timeout_ms=4321, generation=1)


async def test_what_is_meant_counts_and_not_how_it_is_written(sea: Service):
    await sea.search("a name, or what it stands for", pipeline="dense")
    stages = [{"stage": "dense", "k": 1000}, {"stage": "group"}]
    assert await cached(sea, "a name, or what it stands for", pipeline=stages, top_k=10, offset=0)


async def test_collections_do_not_answer_for_one_another(sea: Service):
    assert [await sea.ids("rain", name, pipeline="bm25") for name in ("c", "words")] == [["rain"], []]


@pytest.mark.parametrize("header", ["no-cache", "max-age=0, No-Cache", "no-store"])
async def test_a_client_may_have_it_worked_out_anew(sea: Service, header: str):
    path, body = "/v1/collections/c/search", {"query": f"anew by {header}"}
    headers = {"Cache-Control": header}
    assert not (await sea.ask("POST", path, json=body, headers=headers))["cached"]
    assert not (await sea.ask("POST", path, json=body))["cached"], "nothing was left"
    assert (await sea.ask("POST", path, json=body))["cached"]
    batch = {"searches": [body]}
    (old,) = (await sea.ask("POST", f"{path}:batch", json=batch))["results"]
    (new,) = (await sea.ask("POST", f"{path}:batch", json=batch, headers=headers))["results"]
    assert (old["cached"], new["cached"], old["hits"]) == (True, False, new["hits"])


async def test_errors_are_found_again(sea: Service):
    for _ in range(2):
        await sea.search('"moon', status=422, pipeline=[{"stage": "bm25", "query_syntax": "full"}])
        await sea.search("moon", status=422, filter={"year": {"over": 1}})


async def test_many_who_ask_the_same_at_once_get_the_same(sea: Service):
    answers = await asyncio.gather(*(sea.search("moon at once") for _ in range(32)))
    assert all(answer["hits"] == answers[0]["hits"] for answer in answers)
    assert await cached(sea, "moon at once")


async def test_a_document_more_makes_all_answers_of_the_collection_old(tmp_path: Path):
    async with running(tmp_path, **BUDGETS) as service:
        await service.make()
        await service.put(DOCUMENTS)
        assert await service.ids("moon", pipeline="bm25") == ["mond", "tide"]
        await service.put([{"id": "new", "text": "moon moon"}])
        answer = await service.search("moon", pipeline="bm25")
        assert ([hit["id"] for hit in answer["hits"]], answer["cached"]) == (["new", "mond", "tide"], False)
        assert await cached(service, "moon", pipeline="bm25", generation=1), "as long as it is there"
        await service.make("other")
        await service.ask("DELETE", "/v1/collections/c", 204)
        await service.make()
        await service.put([{"id": "again", "text": "the same moon"}])
        answer = await service.search("moon", pipeline="bm25")
        assert ([hit["id"] for hit in answer["hits"]], answer["generation"]) == (["again"], 1)
        assert not answer["cached"]


async def test_an_answer_of_damaged_bytes_is_not_given_once_they_are_known(tmp_path: Path):
    async with running(tmp_path, **BUDGETS) as service:
        await service.make(components=["bm25"])
        for document in DOCUMENTS:
            await service.put([document])
        assert [await cached(service, "sea") for _ in range(2)] == [False, True]
        collection = service.state.catalog.get("c")
        damaged = collection.current.parts[0].entry.name
        await service.state.catalog.judge(collection, f"segment {damaged}", "a byte has changed")
        answer = await service.search("sea")
        assert (answer["cached"], [hit["id"] for hit in answer["hits"]]) == (False, ["rain"])
        assert answer["degraded"] == ["bm25"]


async def test_half_an_answer_is_not_kept(tmp_path: Path):
    broken = True

    def load(role: str, name: str) -> Any:
        if role == "dense" and broken:
            raise OSError("the disk is asleep")
        return word_overlap(role, name)

    async with running(tmp_path, load=load, **BUDGETS) as service:
        await service.make(components=["bm25", "dense"])
        await service.put(DOCUMENTS)
        for _ in range(2):
            answer = await service.search("moon", pipeline="hybrid")
            assert (answer["degraded"], answer["cached"]) == (["dense"], False)
        broken = False
        for _ in range(3):
            answer = await service.search("moon", pipeline="hybrid")
            assert answer["degraded"] == []
        assert answer["cached"]


async def test_a_question_is_encoded_once_for_all_its_pages_and_generations(tmp_path: Path):
    net = CountingNet()
    async with running(tmp_path, load=loading(dense=net), **BUDGETS) as service:
        await service.make(components=["bm25", "dense"])
        await service.put(DOCUMENTS)
        await service.search("moon", pipeline="dense")
        before = len(net.batches)
        assert (await service.search("moon", pipeline="dense", offset=1))["hits"]
        assert (await service.search("moon", pipeline="hybrid"))["degraded"] == []
        await service.put([{"id": "new", "text": "moon"}])
        assert (await service.ids("moon", pipeline="dense"))[0] == "new"
        assert len(net.batches) == before
        await service.search("sea", pipeline="dense")
        assert len(net.batches) == before + 1


async def test_an_evaluation_measures_without_caches(tmp_path: Path):
    net = CountingNet()
    judged = {
        "queries": {"q": "moon"},
        "qrels": {"q": {"tide": 1}},
        "pipelines": {"one": "dense", "two": "dense"},
    }
    async with running(tmp_path, load=loading(dense=net), **BUDGETS) as service:
        await service.make(components=["dense"])
        await service.put(DOCUMENTS)
        await service.search("moon", pipeline="dense", top_k=1000, fields=[])
        before = len(net.batches)
        await service.ask("POST", "/v1/collections/c/evaluate", json=judged)
        assert len(net.batches) == before + 2


async def test_caches_can_be_turned_off_and_are_told_about(tmp_path: Path):
    async with running(tmp_path, encoding_cache_bytes=4096) as service:
        await service.make(components=["dense"])
        await service.put(DOCUMENTS)
        assert not any([await cached(service, "moon", pipeline="dense") for _ in range(3)])
        text = (await service.client.get("/metrics")).text
        for line in (
            'winnow_cache_hits_total{cache="encodings",net=""} 2.0',
            'winnow_cache_misses_total{cache="encodings",net=""} 1.0',
            'winnow_cache_evictions_total{cache="encodings",net=""} 0.0',
            'winnow_cache_declined_total{cache="encodings",net=""} 0.0',
            'winnow_cache_errors_total{cache="encodings",net=""} 0.0',
            'winnow_cache_limit_bytes{cache="encodings",net=""} 4096.0',
        ):
            assert line in text
        assert 'winnow_cache_hits_total{cache="results",net=""}' not in text
