"""A cross-encoder behind its batcher: shared forwards, and as many documents as there is time for."""

import asyncio
import math
import threading
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from models.cross import CrossEncoder
from models.cross_recipe import FILE
from service.batcher import Batcher
from service.cross import BLOCK, CHARACTERS, CrossNet, CrossReranker
from service.errors import BusyError, DeadlineError, NotConfiguredError
from service.nets import Nets
from service.settings import Settings
from service.workers import Workers
from tests.nets import WordOverlapCrossNet, loading, tiny_cross_encoder
from tests.service.full_queue import CrossNetThatShuts

SEA = [("", "the moon pulls the sea"), ("", "cat"), ("tide", "the sea")]
LONG = "the cat sleeps by the sea all day long and the moon pulls the tide of the sea at night by day"


@asynccontextmanager
async def behind(
    net: WordOverlapCrossNet | CrossEncoder, limit: int = 65_536
) -> AsyncIterator[CrossReranker]:
    workers = Workers(2)
    batcher = Batcher(CrossNet(net), workers, budget=256, most=16, limit=limit, name=net.name)
    await batcher.start()
    try:
        yield CrossReranker(net, batcher, workers, limit)
    finally:
        await batcher.close()
        workers.close()


async def test_every_document_has_the_score_of_its_windows():
    async with behind(WordOverlapCrossNet()) as reranker:
        found = await reranker.score("moon sea tide", [*SEA, ("", LONG)])
        assert found.scores.tolist() == [2.0, 0.0, 2.0, 2.0 + 0.5]
        assert found.cut == 1, "of the long one two windows of three"
        shown = [LONG[begin:end] for begin, end in found.windows[3].characters.tolist()]
        assert shown == ["the cat sleeps by the sea all day", "long and the moon pulls the tide of"]
        assert found.windows[3].logits.tolist() == [1.0, 2.0]
        assert reranker.activate(found.scores[:2]).tolist() == [pytest.approx(2 / 3), 0.0]


async def test_tokens_are_those_that_passed_through_the_net():
    async with behind(net := WordOverlapCrossNet()) as reranker:
        found = await reranker.score("moon", SEA)
        assert found.tokens == (1 + 5) + (1 + 1) + (1 + 3)
        assert sum(len(item) for batch in net.forwards for item in batch) == found.tokens


async def test_no_documents_have_no_scores():
    async with behind(net := WordOverlapCrossNet()) as reranker:
        assert (await reranker.score("moon", [])).scores.tolist() == []
        assert net.forwards == []


async def test_requests_share_forwards():
    async with behind(net := WordOverlapCrossNet()) as reranker:
        net.gate.clear()
        first = asyncio.create_task(reranker.score("cat", [("", "cat")]))
        await asyncio.to_thread(net.entered.acquire)
        others = [asyncio.create_task(reranker.score(word, SEA[:1])) for word in ("moon", "sea", "dog")]
        while reranker.batcher.queued_tokens < 3 * 6:
            await asyncio.sleep(0.001)
        net.gate.set()
        assert (await first).scores.tolist() == [1.0]
        assert [(await each).scores.tolist() for each in others] == [[1.0], [1.0], [0.0]]
        assert [len(batch) for batch in net.forwards] == [1, 3]


async def test_many_documents_go_in_calls_that_leave_room_for_others():
    """A hundred documents of six tokens: more than may wait at once, and more than are cut at a time."""
    documents = [("", f"moon {number} of the sea") for number in range(BLOCK + 40)]
    async with behind(WordOverlapCrossNet(), limit=256) as reranker:
        found = await reranker.score("moon 7", documents)
    assert found.scores.tolist() == [2.0 if number == 7 else 1.0 for number in range(BLOCK + 40)]


async def test_long_documents_are_cut_a_few_at_a_time():
    class Noting(WordOverlapCrossNet):
        def read(self, query: str, documents: Sequence[tuple[str, str]]) -> list[Any]:
            cut.append(len(documents))
            return super().read(query, documents)

    cut: list[int] = []
    long = ("", "sea " * (CHARACTERS // 4))
    async with behind(Noting()) as reranker:
        found = await reranker.score("moon sea", [long, *SEA, long, ("", "sea" + " " * CHARACTERS), *SEA])
    assert cut == [1, 3, 1, 1, 3]
    assert found.scores.tolist() == [1.5, 2.0, 0.0, 1.0, 1.5, 1.0, 2.0, 0.0, 1.0]


async def measured(reranker: CrossReranker, net: WordOverlapCrossNet, seconds: float) -> None:
    """Let the batcher know what a token costs."""
    net.seconds = seconds
    await reranker.score("moon", SEA)


async def test_it_reads_as_many_as_there_is_time_for():
    async with behind(net := WordOverlapCrossNet()) as reranker:
        await measured(reranker, net, 0.01)
        documents = [("", f"moon {number} a b c d e f") for number in range(50)]  # nine tokens each
        found = await reranker.score("moon", documents, time.monotonic() + 1.0)
        assert 4 <= len(found.scores) <= 11
        assert len(found.windows) == len(found.scores)


async def test_no_time_for_one_is_said_and_costs_the_net_nothing():
    async with behind(net := WordOverlapCrossNet()) as reranker:
        await measured(reranker, net, 0.01)
        before = len(net.forwards)
        with pytest.raises(DeadlineError, match="no time for one of 3"):
            await reranker.score("moon", SEA, time.monotonic() + 0.01)
        assert len(net.forwards) == before


async def test_what_others_wait_for_counts():
    async with behind(net := WordOverlapCrossNet()) as reranker:
        await measured(reranker, net, 0.005)
        net.gate.clear()
        net.entered = threading.Semaphore(0)
        other = asyncio.create_task(reranker.score("moon", [("", "sea " * 7)] * 20))
        await asyncio.to_thread(net.entered.acquire)
        with pytest.raises(DeadlineError):
            await reranker.score("moon", SEA[:1], time.monotonic() + 0.5)
        net.gate.set()
        assert len((await other).scores) == 20


async def test_a_wrong_estimate_costs_documents_and_not_those_that_were_scored():
    async with behind(net := WordOverlapCrossNet(), limit=256) as reranker:
        await measured(reranker, net, 0.0)
        net.seconds = 0.004
        documents = [("", f"moon {number} a b c d e f") for number in range(BLOCK)]
        found = await reranker.score("moon", documents, time.monotonic() + 0.6)
        assert 7 <= len(found.scores) < BLOCK
        assert (found.scores == 1.0).all()


async def test_a_queue_that_fills_up_costs_documents_and_not_those_that_were_scored():
    async with behind(net := CrossNetThatShuts(), limit=256) as reranker:
        net.gate.clear()
        documents = [("", f"moon {number} a b c d e f") for number in range(30)]  # seven make a call
        scoring = asyncio.create_task(reranker.score("moon", documents))
        await asyncio.to_thread(net.entered.acquire)
        others = asyncio.create_task(reranker.batcher.submit([[1]] * 256))
        while reranker.batcher.queued_tokens < 256:
            await asyncio.sleep(0.001)
        net.gate.set()
        found = await scoring
        assert found.scores.tolist() == [1.0] * 7
        assert found.full is not None
        assert found.full.retry_after is not None
        with pytest.raises(BusyError):
            await reranker.score("moon", documents)
        net.gate.set()
        assert len(await others) == 256


async def test_a_real_net_scores_as_it_does_by_itself(tmp_path: Path):
    path = tiny_cross_encoder(tmp_path / "net", max_tokens=64)
    (path / FILE).write_text('{"window": 8, "overlap": 2, "passages": 2, "weights": [1, 0.5]}')
    net = CrossEncoder.load(str(path), dtype="float32")
    documents = [*SEA, ("moon", LONG)]
    async with behind(net) as reranker:
        found = await reranker.score("the moon and the tide", documents, math.inf)
    np.testing.assert_allclose(
        found.scores[:2], net.predict([("the moon and the tide", b) for _, b in SEA[:2]]), atol=1e-5
    )
    titled = [("the moon and the tide", "tide the sea")]
    np.testing.assert_allclose(found.scores[2], net.predict(titled)[0], atol=1e-5)
    windows = [f"moon {LONG[begin:end]}" for begin, end in found.windows[3].characters.tolist()]
    logits = net.predict([("the moon and the tide", each) for each in windows])
    assert found.scores[3] == pytest.approx(max(logits) + 0.5 * min(logits), abs=1e-5)
    assert found.cut == 1


async def test_the_service_has_the_one_that_its_settings_name(tmp_path: Path):
    workers, net = Workers(1), WordOverlapCrossNet()
    nets = Nets(Settings(data_dir=tmp_path, cross_encoder="mine"), workers, loading(cross=net))
    try:
        reranker = await nets.cross()
        assert (await nets.get("cross", "mine", None)).net is reranker
        assert reranker.fingerprint == net.fingerprint
        assert [batcher.name for batcher in nets.batchers()] == ["mine"]
    finally:
        await nets.stop()
        workers.close()


async def test_without_one_it_says_what_to_set(tmp_path: Path):
    workers = Workers(1)
    with pytest.raises(NotConfiguredError, match="set WINNOW_CROSS_ENCODER"):
        await Nets(Settings(data_dir=tmp_path, cross_encoder=None), workers, loading()).cross()
    workers.close()
