"""Searches over HTTP, on documents whose ranking can be seen by eye."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from service.batcher import Overloaded
from service.schema.search import SearchRequest
from tests.nets import SlowEncoder, WordOverlapEncoder, loading
from tests.running import Service, running

DOCUMENTS: list[dict[str, Any]] = [
    {
        "id": "tide",
        "text": "The moon pulls the sea.",
        "title": "Tides",
        "metadata": {"year": 2020, "lang": "en"},
    },
    {"id": "cat", "text": "Cats sleep & purr all day.", "metadata": {"year": 2021, "lang": "en"}},
    {"id": "mond", "text": "Der moon steht am Himmel.", "metadata": {"year": 2022, "lang": "de"}},
    {"id": "rain", "text": "Rain falls into the sea from clouds.", "metadata": {"year": 2023}},
]


pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def sea(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Service]:
    """A collection of two segments that no test changes, and an empty one."""
    async with running(tmp_path_factory.mktemp("sea")) as service:
        await service.make()
        await service.put(DOCUMENTS[:2])
        await service.put(DOCUMENTS[2:])
        await service.make("empty")
        yield service


async def test_an_answer_has_hits_scores_passages_and_the_account_of_every_stage(sea: Service):
    answer = await sea.search("moon over the sea", top_k=1, pipeline="hybrid")
    (hit,) = answer["hits"]
    assert hit["id"] == "tide"
    assert set(hit) == {"id", "score", "scores", "passage", "title", "metadata"}
    assert set(hit["scores"]) == {"bm25", "dense"}
    assert hit["passage"] == {"start": 0, "end": 23, "text": "The moon pulls the sea."}
    assert (hit["title"], hit["metadata"]) == ("Tides", {"year": 2020, "lang": "en"})
    fuse, group = answer["stages"]
    assert (fuse["stage"], fuse["status"], fuse["in"], fuse["out"]) == ("fuse", "ran", 0, 4)
    assert [[each["stage"] for each in inner] for inner in fuse["inputs"]] == [["bm25"], ["dense"]]
    assert (group["stage"], group["in"], group["out"]) == ("group", 4, 4)
    assert answer["degraded"] == []
    assert answer["generation"] == 2


async def test_words_count_as_often_as_they_are_said(sea: Service):
    once = await sea.search("moon sea", pipeline="bm25")
    twice = await sea.search("moon sea sea", pipeline="bm25")
    assert [hit["id"] for hit in once["hits"]] == ["tide", "mond", "rain"]
    assert [hit["id"] for hit in twice["hits"]] == ["tide", "rain", "mond"]


@pytest.mark.parametrize("query", ['"', "AND", "a:b", "(((", "\\", "moon^", "+", "*", "\x00", "🌊" * 100])
async def test_plain_words_are_never_a_parse_error(sea: Service, query: str):
    await sea.search(query)


async def test_full_syntax_finds_phrases_and_marks_them(sea: Service):
    full = [{"stage": "bm25", "query_syntax": "full"}]
    answer = await sea.search('+sea -"the moon"', pipeline=full, highlight=True)
    (hit,) = answer["hits"]
    assert hit["id"] == "rain"
    assert hit["highlights"] == ["Rain falls into the <mark>sea</mark> from clouds."]


async def test_what_is_wrong_with_full_syntax_is_said(sea: Service):
    problem = await sea.search('"moon', status=422, pipeline=[{"stage": "bm25", "query_syntax": "full"}])
    assert "missing delimiter" in problem["detail"]


async def test_highlights_are_escaped(sea: Service):
    (hit,) = (await sea.search("cats", pipeline="bm25", highlight=True))["hits"]
    assert hit["highlights"] == ["<mark>Cats</mark> sleep &amp; purr all day."]


@pytest.mark.parametrize(
    ("pipeline", "matched"), [("bm25", ["moon", "sea"]), ("sparse", ["moon", "sea", "the"])]
)
async def test_an_explanation_adds_up_to_the_score(sea: Service, pipeline: str, matched: list[str]):
    answer = await sea.search("the moon of the sea", pipeline=pipeline, explain=True)
    for hit in answer["hits"]:
        terms = hit["explanation"][pipeline]
        assert sum(term["score"] for term in terms) == pytest.approx(hit["score"], rel=1e-5)
        for term in terms:
            assert term["query"] * term["passage"] == pytest.approx(term["score"])
        assert [term["score"] for term in terms] == sorted((t["score"] for t in terms), reverse=True)
    assert sorted(term["term"] for term in answer["hits"][0]["explanation"][pipeline]) == matched


async def test_every_retriever_of_terms_explains_itself(sea: Service):
    (hit,) = (await sea.search("moon sea", pipeline="balanced", explain=True, top_k=1))["hits"]
    assert set(hit["explanation"]) == {"bm25", "sparse"}
    assert set(hit["scores"]) == {"bm25", "dense", "sparse"}


PIPELINES = [
    "bm25",
    "dense",
    "sparse",
    "hybrid",
    "balanced",
    [{"stage": "bm25", "query_syntax": "full"}],
]


@pytest.mark.parametrize("pipeline", PIPELINES)
async def test_a_filter_holds_in_every_retriever(sea: Service, pipeline: Any):
    ask = {"pipeline": pipeline}
    assert set(await sea.ids("moon sea", filter={"year": {"gte": 2021}, "$not": {"lang": "en"}}, **ask)) == {
        "mond",
        "rain",
    }
    assert await sea.ids("moon sea", filter={"lang": ["de", "fr"]}, **ask) == ["mond"]
    assert await sea.ids("moon sea", filter={"lang": "fr"}, **ask) == []


async def test_only_the_fields_asked_for_are_shown(sea: Service):
    (bare,) = (await sea.search("moon", fields=[], top_k=1))["hits"]
    assert set(bare) == {"id", "score", "scores"}
    (text,) = (await sea.search("moon", fields=["text"], top_k=1))["hits"]
    assert text["text"] == "The moon pulls the sea."
    assert "title" not in text


async def test_pages_of_one_generation_fit_together(sea: Service):
    await sea.make("pages")
    await sea.put(DOCUMENTS, "pages")
    whole = await sea.search("moon sea", "pages", top_k=4)
    await sea.put([{"id": "new", "text": "moon moon moon"}], "pages")
    named = {"top_k": 2, "generation": whole["generation"]}
    pages = [await sea.ids("moon sea", "pages", offset=offset, **named) for offset in (0, 2, 4)]
    assert list(chain(*pages)) == [hit["id"] for hit in whole["hits"]]
    assert "new" in await sea.ids("moon sea", "pages", top_k=5)


async def test_a_generation_that_is_not_kept_is_gone(tmp_path: Any):
    async with running(tmp_path, keep_seconds=0.0) as service:
        await service.make()
        await service.put(DOCUMENTS)
        await service.state.catalog.refresh()
        problem = await service.search("moon", status=410, generation=0)
        assert problem["code"] == "generation_gone"


async def test_a_generation_that_never_was_is_invalid(sea: Service):
    problem = await sea.search("moon", status=422, generation=99)
    assert "the newest is 2" in problem["detail"]


async def test_grouping_shows_every_document_once_and_can_be_left_out(sea: Service):
    await sea.make("long", passage_tokens=16, overlap_sentences=0, lexical_unit="passage")
    long = " ".join(f"The moon is number {n} of many and shines on us." for n in range(6))
    await sea.put([{"id": "long", "text": long}, {"id": "short", "text": "moon"}], "long")
    assert await sea.ids("moon", "long", pipeline="bm25") == ["short", "long"]
    passages = await sea.search("moon", "long", pipeline="bm25", group_by="passage")
    assert [hit["id"] for hit in passages["hits"]].count("long") > 1
    assert [stage["stage"] for stage in passages["stages"]] == ["bm25"]
    for hit in passages["hits"]:
        begin, end = hit["passage"]["start"], hit["passage"]["end"]
        assert hit["passage"]["text"] == (long if hit["id"] == "long" else "moon")[begin:end]


async def test_before_anything_is_published_there_are_no_hits(sea: Service):
    shown = {"filter": {"a": 1}, "highlight": True, "explain": True}
    for pipeline in PIPELINES:
        answer = await sea.search("moon", "empty", pipeline=pipeline, **shown)
        assert (answer["hits"], answer["generation"]) == ([], 0)


@pytest.mark.parametrize(
    ("components", "first", "inputs"),
    [
        (["bm25"], "bm25", []),
        (["sparse"], "sparse", []),
        (["bm25", "sparse"], "fuse", ["bm25", "sparse"]),
        (["dense", "sparse"], "fuse", ["dense", "sparse"]),
        (["bm25", "dense"], "fuse", ["bm25", "dense"]),
    ],
)
async def test_the_default_pipeline_is_what_the_collection_can_do(
    sea: Service, components: list[str], first: str, inputs: list[str]
):
    name = "-".join(components)
    await sea.make(name, components=components)
    start, group = (await sea.search("moon", name))["stages"]
    assert (start["stage"], group["stage"]) == (first, "group")
    assert [each["stage"] for inner in start["inputs"] for each in inner] == inputs


async def test_a_component_that_is_missing_is_named_with_what_to_do(sea: Service):
    await sea.make("words", components=["bm25"])
    problem = await sea.search("moon", "words", status=422, pipeline="balanced")
    assert problem["code"] == "component_missing"
    assert 'PUT /v1/collections/NAME {"components": ["bm25", "sparse"]}' in problem["detail"]


async def test_pipelines_of_the_settings_have_names(tmp_path: Any):
    mine = {
        "mine": [{"stage": "fuse", "method": "rrf", "inputs": [[{"stage": "bm25"}], [{"stage": "bm25"}]]}]
    }
    async with running(tmp_path, pipelines=mine) as service:
        await service.make()
        await service.put(DOCUMENTS)
        (hit,) = (await service.search("clouds", pipeline="mine"))["hits"]
        assert set(hit["scores"]) == {"bm25", "bm25_2"}
        assert "mine" in (await service.search("clouds", pipeline="yours", status=422))["detail"]


@pytest.mark.parametrize(
    ("request_", "sentence"),
    [
        ({"top_k": 10**9}, "top_k is 1000000000; the limit 'top_k' is 1000"),
        ({"offset": 9_999}, "the limit 'candidates' is 10000"),
        ({"pipeline": [{"stage": "dense", "k": 10**6}]}, "pipeline.0.k is 1000000; the limit 'candidates'"),
        ({"timeout_ms": 10**6}, "the limit 'timeout_ms' is 60000"),
        ({"query": "é" * 5000}, "query is 10000; the limit 'query_bytes' is 8192"),
        ({"filter": {"$or": [{"a": n} for n in range(300)]}}, "a filter has at most 256 nodes"),
        ({"pipeline": [{"stage": "fuse", "inputs": [[{"stage": "bm25"}]] * 40}]}, "the limit 'stages' is 32"),
        ({"fields": ["vector"]}, "Input should be 'title', 'text', 'metadata' or 'passage'"),
        ({"pipeline": "best"}, "there is no pipeline 'best'"),
        ({"pipeline": []}, "at least 1 item"),
        ({"topk": 3}, "topk: Extra inputs are not permitted"),
        ({"top_k": "3"}, "top_k: Input should be a valid integer"),
        ({"top_k": True}, "top_k: Input should be a valid integer"),
        ({"query": ""}, "at least 1 character"),
    ],
)
async def test_what_cannot_be_answered_is_refused_with_the_reason(
    sea: Service, request_: dict[str, Any], sentence: str
):
    problem = await sea.search(**{"query": "moon", **request_}, status=422)
    assert sentence in problem["detail"]


async def test_an_unknown_collection_is_named_with_how_to_make_it(sea: Service):
    problem = await sea.search("moon", "nowhere", status=404)
    assert "no collection 'nowhere': make it with PUT /v1/collections/nowhere" in problem["detail"]


async def test_a_batch_has_an_answer_or_a_problem_for_each(sea: Service):
    searches = [
        {"query": "moon"},
        {"query": "moon", "pipeline": "best"},
        {"query": "clouds", "pipeline": "bm25"},
    ]
    answer = await sea.ask("POST", "/v1/collections/c/search:batch", json={"searches": searches})
    first, second, third = answer["results"]
    assert first["hits"][0]["id"] in ("tide", "mond")
    assert (second["status"], second["code"]) == (422, "invalid_request")
    assert [hit["id"] for hit in third["hits"]] == ["rain"]
    too_many = {"searches": [{"query": "moon"}] * 101}
    problem = await sea.ask("POST", "/v1/collections/c/search:batch", 422, json=too_many)
    assert "the limit 'searches' is 100" in problem["detail"]


@asynccontextmanager
async def slow(directory: Path, **settings: Any) -> AsyncIterator[Service]:
    """A service that answers twenty questions a second, one after the other."""
    given = {"threads": 1, "batch_texts": 1, "batch_tokens": 1000, **settings}
    async with running(directory, loading(dense=SlowEncoder()), **given) as service:
        await service.make(components=["dense"])
        await service.put([{"id": "tide", "text": "the moon pulls the sea"}])
        yield service


async def test_what_waits_for_others_of_its_batch_has_no_more_time_for_it(tmp_path: Path):
    async with slow(tmp_path) as service:
        searches = [{"query": "moon", "timeout_ms": 1000}] * 60  # three seconds
        answer = await service.ask("POST", "/v1/collections/c/search:batch", json={"searches": searches})
        first, *_, last = answer["results"]
        assert [hit["id"] for hit in first["hits"]] == ["tide"]
        assert (last["status"], last["code"]) == (504, "deadline_exceeded")


async def test_a_search_is_let_in_beside_a_batch(tmp_path: Path):
    async with slow(tmp_path, queue_ms=1) as service:
        await service.search("moon")  # from now on it is known how long one takes
        searches = {"searches": [{"query": "moon"}] * 20}
        batch = asyncio.create_task(service.ask("POST", "/v1/collections/c/search:batch", json=searches))
        await asyncio.sleep(0.3)  # of the second that it takes
        assert not batch.done()
        await service.search("moon")
        assert all("hits" in each for each in (await batch)["results"])


async def test_http_and_the_engine_give_the_same_answer(sea: Service):
    snapshot = sea.state.catalog.get("c").current
    for query in ("moon", "the sea", "cats"):
        over_http = await sea.search(query, explain=True, highlight=True)
        request = SearchRequest(query=query, explain=True, highlight=True)
        direct = await sea.state.engine.search(snapshot, request)
        assert over_http["hits"] == direct["hits"]


class Held(WordOverlapEncoder):
    """Its forward is held back once `slow` is set; its queue is full when `full` is."""

    slow = False
    full = False

    def forward(self, tokens: Any) -> Any:
        if self.slow:
            time.sleep(0.5)
        return super().forward(tokens)

    def tokenize(self, texts: Any, kind: Any = "document") -> Any:
        if self.full and kind == "query":
            raise Overloaded("the queue is full", retry_after=2.5)
        return super().tokenize(texts, kind)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def slow_sea(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[tuple[Service, Held]]:
    encoder = Held()
    async with running(tmp_path_factory.mktemp("slow"), load=loading(dense=encoder)) as service:
        await service.make()
        await service.put(DOCUMENTS)
        yield service, encoder


@pytest.fixture
def held(slow_sea: tuple[Service, Held]) -> Iterator[tuple[Service, Held]]:
    yield slow_sea
    slow_sea[1].slow = slow_sea[1].full = False


async def test_a_retriever_that_is_late_is_left_out_and_said(held: tuple[Service, Held]):
    service, encoder = held
    encoder.slow = True
    answer = await service.search("moon", timeout_ms=100, pipeline="hybrid")
    assert [hit["id"] for hit in answer["hits"]] == ["tide", "mond"]
    assert answer["degraded"] == ["dense"]
    fuse, group = answer["stages"]
    assert (fuse["status"], group["status"]) == ("degraded", "ran")
    assert fuse["reason"].startswith("dense skipped: the time for this stage was up")
    assert answer["took_ms"] < 400


async def test_when_no_retriever_finished_the_answer_is_504(held: tuple[Service, Held]):
    service, encoder = held
    encoder.slow = True
    problem = await service.search("moon", status=504, pipeline="dense", timeout_ms=50)
    assert problem["code"] == "deadline_exceeded"


async def test_a_budget_narrows_the_time_of_one_stage(held: tuple[Service, Held]):
    service, encoder = held
    encoder.slow = True
    inputs = [[{"stage": "bm25"}], [{"stage": "dense", "budget_ms": 30}]]
    answer = await service.search("moon", pipeline=[{"stage": "fuse", "inputs": inputs}])
    assert answer["degraded"] == ["dense"]
    assert answer["took_ms"] < 400


async def test_a_full_queue_costs_a_hybrid_search_its_vectors_and_a_dense_one_the_answer(
    held: tuple[Service, Held],
):
    service, encoder = held
    encoder.full = True
    assert (await service.search("moon", pipeline="hybrid"))["degraded"] == ["dense"]
    response = await service.client.post(
        "/v1/collections/c/search", json={"query": "moon", "pipeline": "dense"}
    )
    assert response.status_code == 429
    assert response.headers["retry-after"] == "3"
    assert response.json()["retry_after_ms"] == 2500


async def test_concurrent_searches_share_forwards(held: tuple[Service, Held]):
    service, encoder = held
    forwards = 0
    original = encoder.forward

    def counting(tokens: Any) -> Any:
        nonlocal forwards
        forwards += 1
        return original(tokens)

    encoder.forward = counting  # type: ignore[method-assign]
    await asyncio.gather(*(service.ids(f"moon {n}") for n in range(8)))
    assert forwards <= 3
