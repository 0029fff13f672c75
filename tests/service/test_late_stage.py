"""Late interaction over HTTP, by an encoder whose similarities can be seen: 1 for the same word, else 0."""

import asyncio
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from indexer.segment.late import LateQuestion
from models.load import WeightsMissing
from service.errors import DeadlineError
from service.stages.late import BLOCK, Late
from service.types import Scores, Search, Seqs
from tests.nets import CountingNet, WordOverlapEncoder, WordOverlapLateEncoder, loading, word_overlap
from tests.running import Service, running
from tests.service.hand_made import hits, search

SEA = [
    {"id": "tide", "text": "the moon pulls the sea"},
    {"id": "cat", "text": "the cat sleeps by the sea"},
    {"id": "moon", "text": "the moon moon moon"},
]
WORDS = {"components": ["bm25", "late"]}
UNPOOLED = {**WORDS, "late_pooling": "none"}


def pipeline(**late: Any) -> list[dict[str, Any]]:
    return [{"stage": "bm25", "k": 100}, {"stage": "late", **late}, {"stage": "group"}]


async def scores(service: Service, query: str, **late: Any) -> dict[str, float]:
    hits = (await service.search(query, pipeline=pipeline(**late)))["hits"]
    return {hit["id"]: round(hit["score"], 2) for hit in hits}


async def account(service: Service, query: str, **late: Any) -> dict[str, Any]:
    stages = (await service.search(query, pipeline=pipeline(**late)))["stages"]
    return next(stage for stage in stages if stage["stage"] == "late")


async def test_a_score_is_the_share_of_the_question_that_is_met(service: Service):
    await service.make(**UNPOOLED)
    await service.put(SEA)
    assert await scores(service, "moon sea") == {"tide": 1.0, "cat": 0.5, "moon": 0.5}
    assert await scores(service, "the sea by night") == {"cat": 0.75, "tide": 0.5}


async def test_its_score_stands_beside_those_before(service: Service):
    await service.make(**UNPOOLED)
    await service.put(SEA)
    hit = (await service.search("moon sea", pipeline=pipeline()))["hits"][0]
    assert set(hit["scores"]) == {"bm25", "late"}
    assert hit["scores"]["late"] == pytest.approx(1.0)


async def test_what_is_not_rescored_keeps_its_order_behind(service: Service):
    await service.make(**UNPOOLED)
    await service.put(SEA)
    before = await service.ids("moon sea", pipeline=[{"stage": "bm25"}, {"stage": "group"}])
    hits = (await service.search("moon sea", pipeline=pipeline(k=1)))["hits"]
    assert [hit["id"] for hit in hits] == before
    assert ["late" in hit["scores"] for hit in hits] == [True, False, False]
    assert hits[0]["score"] > hits[1]["score"] > hits[2]["score"]


async def test_a_weight_mixes_in_the_order_before(service: Service):
    await service.make(**UNPOOLED)
    await service.put(SEA)
    found = await scores(service, "moon sea", weight=0.5)
    assert found["tide"] == 1.0  # best by both
    assert 0.0 <= min(found.values()) < max(found.values())


async def test_candidates_are_pruned_and_the_answer_says_how_many_were_scored(service: Service):
    await service.make(**UNPOOLED)
    await service.put(SEA)
    assert (await account(service, "moon sea"))["scored"] == 3
    assert (await account(service, "moon sea", k=2))["scored"] == 2
    assert (await account(service, "moon sea", final=1, alpha=0.0))["scored"] == 1
    assert (await account(service, "moon sea", final=1, alpha=1.0))["scored"] == 3
    assert (await account(service, "moon sea", final=1, patience=1))["scored"] == 2


async def test_segments_do_not_matter(service: Service):
    await service.make("one", **WORDS)
    await service.make("three", **WORDS)
    await service.put(SEA, "one")
    for document in SEA:
        await service.put([document], "three")
    answers = [
        (await service.search("the moon by night", name, pipeline=pipeline()))["hits"]
        for name in ("one", "three")
    ]
    assert answers[0] == answers[1]


async def test_what_is_replaced_is_scored_anew(service: Service):
    await service.make(**UNPOOLED)
    await service.put(SEA)
    await service.put([{"id": "cat", "text": "moon sea"}])
    assert (await scores(service, "moon sea"))["cat"] == 1.0


@pytest.mark.parametrize(
    "schema",
    [
        {"late_pooling": "hierarchical", "late_pool": 1},
        {"late_pooling": "words"},
        {"late_pooling": "clusters", "late_pool": 5},
        {"late_pooling": "none", "late_precision": "residual4"},
    ],
)
async def test_stores_of_every_kind_answer(service: Service, schema: dict[str, Any]):
    await service.make(**{**WORDS, **schema})
    await service.put(SEA)
    assert list(await scores(service, "moon sea")) == ["tide", "cat", "moon"]


async def test_pooled_vectors_are_fewer_and_say_less(service: Service):
    await service.make(**{**WORDS, "late_pooling": "clusters", "late_pool": 1})
    await service.put([{"id": "a", "text": "moon sea"}])
    assert await scores(service, "moon") == {"a": 0.71}  # halfway between two directions


async def test_an_explanation_names_the_tokens_that_met(service: Service):
    await service.make(**UNPOOLED)
    await service.put(SEA)
    hits = (await service.search("moon sea", pipeline=pipeline(), explain=True))["hits"]
    found = {hit["id"]: hit["explanation"]["late"] for hit in hits}
    assert [(each["query_token"], each["passage_tokens"]) for each in found["tide"]] == [
        ("moon", ["moon"]),
        ("sea", ["sea"]),
    ]
    assert [round(each["similarity"], 2) for each in found["cat"]] == [0.0, 1.0]


async def test_an_explanation_names_all_tokens_of_a_pooled_vector(service: Service):
    await service.make(**{**WORDS, "late_pooling": "words"})
    await service.put(SEA)
    hits = (await service.search("moon", pipeline=pipeline(), explain=True))["hits"]
    (moon,) = next(hit for hit in hits if hit["id"] == "moon")["explanation"]["late"]
    assert moon["passage_tokens"] == ["moon", "moon", "moon"]


async def test_the_similarities_of_an_explanation_have_the_score_as_mean(service: Service):
    await service.make(**WORDS)
    await service.put(SEA)
    for hit in (await service.search("the moon by night", pipeline=pipeline(), explain=True))["hits"]:
        similarities = [each["similarity"] for each in hit["explanation"]["late"]]
        assert sum(similarities) / len(similarities) == pytest.approx(hit["scores"]["late"], abs=1e-6)


async def test_a_collection_without_it_says_how_to_make_one(service: Service):
    await service.make(components=["bm25"])
    problem = await service.search("moon", status=422, pipeline=pipeline())
    assert problem["code"] == "component_missing"
    assert json.dumps(["bm25", "late"]) in problem["detail"]


async def test_it_cannot_be_all_that_a_collection_has(service: Service):
    problem = await service.ask("PUT", "/v1/collections/c", 422, json={"components": ["late"]})
    assert "add bm25, dense or sparse" in problem["errors"][0]["detail"]


async def test_it_comes_after_what_finds_hits(service: Service):
    await service.make(**WORDS)
    problem = await service.search("moon", status=422, pipeline=[{"stage": "late"}])
    assert "needs hits to work on" in problem["detail"]


async def test_without_its_weights_the_hits_are_those_before(tmp_path: Path):
    def missing(role: str, name: str) -> Any:
        if role == "late":
            raise WeightsMissing("pip install --no-deps weights")
        return word_overlap(role, name)

    async with running(tmp_path, load=missing) as service:
        await service.make(**UNPOOLED)
        await service.put(SEA)
        answer = await service.search("moon sea", pipeline=pipeline())
        assert answer["degraded"] == ["late"]
        assert "pip install" in answer["stages"][1]["reason"]
        assert len(answer["hits"]) == 3


async def test_nothing_found_stays_nothing(service: Service):
    await service.make(**WORDS)
    await service.put(SEA)
    assert await scores(service, "zebra") == {}
    await service.make("empty", **WORDS)
    assert await service.ids("moon", "empty", pipeline=pipeline()) == []


LONG = {"id": "long", "text": "The moon is far away. " * 12 + "The sea is near the moon. " * 12}


async def test_all_passages_of_a_document_can_be_scored_and_the_best_is_shown(service: Service):
    await service.make(**UNPOOLED, passage_tokens=16, overlap_sentences=0)
    await service.put([LONG, *SEA])
    stages = [{"stage": "bm25", "k": 100, "unit": "document"}, {"stage": "late", "aggregate": "max"}]
    hits = {hit["id"]: hit for hit in (await service.search("far sea", pipeline=stages))["hits"]}
    assert hits["long"]["score"] == pytest.approx(0.5)
    hits = {hit["id"]: hit for hit in (await service.search("near moon", pipeline=stages))["hits"]}
    assert hits["long"]["score"] == pytest.approx(1.0)
    assert "near" in hits["long"]["passage"]["text"]
    passages = [{"stage": "bm25", "k": 100, "unit": "passage"}, {"stage": "late"}]
    found = (await service.search("near moon", pipeline=passages))["hits"]
    assert {round(hit["score"], 2) for hit in found if hit["id"] == "long"} == {0.5, 1.0}, "each by itself"


class Pooling(WordOverlapLateEncoder):
    """A dense encoder whose token states are read: its vector of a text is that of word overlap, too."""

    pooled = WordOverlapEncoder.fingerprint

    def vectors(self, tokens: Any, sentences: bool = False) -> list[Any]:
        dense = WordOverlapEncoder().forward([[0, *ids, 0] for ids in tokens])
        rows = [rows for rows, _ in super().vectors(tokens)]
        return list(zip(rows, dense if sentences else [None] * len(rows), strict=True))


async def test_one_forward_gives_both_kinds_of_vectors_of_a_question(tmp_path: Path):
    counting = CountingNet()
    async with running(tmp_path, load=loading(late=Pooling(), dense=counting)) as service:
        await service.make()
        await service.put(SEA)
        await service.make("both", components=["bm25", "dense", "sparse", "late"])
        await service.put(SEA, "both")
        asked = await service.search("moon sea", "both", pipeline="balanced")
        before = len(counting.batches)
        answer = await service.search("moon sea", "both", pipeline="precise")
        assert len(counting.batches) == before
        assert [stage["status"] for stage in answer["stages"]] == ["ran"] * 4
        plain = await service.search("moon sea", pipeline="balanced")
        assert len(counting.batches) == before + 1
        assert [hit["scores"]["dense"] for hit in asked["hits"]] == [
            hit["scores"]["dense"] for hit in plain["hits"]
        ]


@pytest.mark.parametrize(("pooled", "forwards"), [(Pooling.pooled, 0), ("another-dense-encoder", 1)])
async def test_whose_vectors_come_with_the_tokens_is_told_by_fingerprint_not_by_name(
    pooled: str, forwards: int, tmp_path: Path
):
    late, counting = Pooling(), CountingNet()
    late.pooled = pooled
    nets = {"encoders": ("heads-beside-it",), "load": loading(late=late, dense=counting)}
    async with running(tmp_path, **nets) as service:
        await service.make(components=["bm25", "dense", "sparse", "late"], late_encoder="heads-beside-it")
        await service.put(SEA)
        await service.search("moon sea", pipeline="balanced")
        before = len(counting.batches)
        await service.search("moon sea", pipeline="precise")
        assert len(counting.batches) == before + forwards


def hold(net: CountingNet) -> None:
    """Let the next forward wait; `entered` then says that one has begun."""
    while net.entered.acquire(blocking=False):
        pass
    net.gate.clear()


async def test_only_a_pipeline_that_wants_tokens_asks_for_their_encoder(tmp_path: Path):
    asked = []

    def load(role: str, name: str) -> Any:
        asked.append(role)
        return word_overlap(role, name)

    async with running(tmp_path, load=load) as service:
        await service.make(components=["bm25", "dense", "sparse", "late"])
        await service.put(SEA)
        assert (await service.search("moon sea", pipeline="balanced"))["degraded"] == []
        assert "late" not in asked
        assert (await service.search("moon sea", pipeline="precise"))["degraded"] == []
        assert "late" in asked


async def test_what_nobody_waits_for_is_not_encoded(tmp_path: Path):
    held = CountingNet()
    async with running(tmp_path, load=loading(dense=held), threads=1) as service:
        await service.make()
        await service.put(SEA)
        await service.search("warm", pipeline="dense")
        hold(held)
        stages = [{"stage": "bm25"}, {"stage": "fast_forward", "budget_ms": 20}]
        first = asyncio.create_task(service.search("moon", pipeline="dense", timeout_ms=5000))
        assert await asyncio.to_thread(held.entered.acquire, timeout=5)
        number = len(held.batches)
        assert (await service.search("sea", pipeline=stages))["degraded"] == ["fast_forward"]
        held.gate.set()
        await first
        await service.search("cat", pipeline="dense")
        assert len(held.batches) == number + 1, "the question of the search that is over left the queue"


class Slow(Late):
    """Takes 30 ms a block, and finds later candidates better."""

    def _block(self, search: Search, seqs: Seqs, asked: LateQuestion) -> tuple[Seqs, Scores]:
        time.sleep(0.03)
        return seqs, seqs.astype(np.float32) / 1000


NOTHING = LateQuestion(np.zeros((16, 2), np.int8), np.ones(1, np.float32))


def test_when_time_ends_the_rest_keeps_its_order_and_the_stage_says_so():
    before = hits({seq: 1000.0 - seq for seq in range(1000)})
    question = search(seconds=0.1)
    found = Slow(k=1000)._rescore(question, before, NOTHING)
    done = question.notes.counts["scored"]
    assert 0 < done < 1000
    assert done % BLOCK == 0
    assert found.seqs.tolist() == [*reversed(range(done)), *range(done, 1000)]
    assert question.notes.reasons == [f"there was time for {done} of 1000 candidates"]


def test_when_there_is_no_time_at_all_it_is_skipped():
    with pytest.raises(DeadlineError):
        Slow()._rescore(search(seconds=-1.0), hits({1: 1.0}), NOTHING)
