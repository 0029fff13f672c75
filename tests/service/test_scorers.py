"""What every scorer does, by whichever net: scores by eye with nets that count words, and what holds of all
with real ones, tiny and random.
"""

import asyncio
import math
import threading
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from models.cross import CrossEncoder
from models.dense import DenseEncoder
from models.in_context.met import met
from models.in_context.states import Joined
from models.late import LateEncoder
from models.sparse import SparseEncoder
from service.endpoints import SCORERS
from service.errors import BusyError, DeadlineError, TooLongError
from service.model_names import SERVED, Served, Target
from service.nets import Nets, Running
from service.scorers import Scale, Scored
from service.settings import Settings
from service.workers import Workers
from tests.models.in_context.nets import tiny_net
from tests.nets import (
    WordOverlapCrossNet,
    WordOverlapEncoder,
    WordOverlapLateEncoder,
    WordOverlapSparseEncoder,
    loading,
    tiny_cross_encoder,
    tiny_encoder,
    tiny_sparse_encoder,
)
from tests.running import running
from tests.service.in_context_net import WordOverlapInContextNet, read_by

QUERY = "moon sea"
TEXTS = ["the moon pulls the sea", "the cat sleeps by the sea", "the moon moon moon"]
REAL_TEXTS = [*TEXTS, "", "rain is water to a dog and the sun is in the sea and the sea is water", "tide!"]

POINTWISE: list[Served] = ["dense", "sparse", "late", "cross"]
IN_CONTEXT: list[Served] = [each for each in SERVED if each not in POINTWISE]
KEPT: list[Served] = ["in_context_keys", "in_context_cached"]
FAKES: dict[str, Callable[[], Any]] = {
    "dense": WordOverlapEncoder,
    "sparse": WordOverlapSparseEncoder,
    "late": WordOverlapLateEncoder,
    "cross": WordOverlapCrossNet,
    "in_context": WordOverlapInContextNet,
}


class Scene:
    """A scorer, and the net behind it."""

    def __init__(self, served: Served, running: Running, workers: Workers) -> None:
        self.running = running
        self._scorer = SCORERS[served](running, workers)

    async def score(
        self, texts: Sequence[str], query: str = QUERY, seconds: float = 60.0, *, whole: bool = False
    ) -> Scored:
        return await self._scorer.score(query, texts, time.monotonic() + seconds, whole=whole)

    async def scores(self, texts: Sequence[str], query: str = QUERY) -> list[float]:
        return (await self.score(texts, query)).scores.tolist()


@asynccontextmanager
async def scene(served: Served, net: Any, directory: Path, **settings: Any) -> AsyncIterator[Scene]:
    workers, role = Workers(2), Target(served, None).role
    given = Settings(data_dir=directory, batch_tokens=256, threads=1, **settings)
    nets = Nets(given, workers, loading(**{role: net}))
    try:
        yield Scene(served, await nets.get(role, "some net", None), workers)
    finally:
        await nets.stop()
        workers.close()


@pytest.fixture(params=SERVED)
def served(request: pytest.FixtureRequest) -> Served:
    name: Served = request.param
    return name


@pytest.fixture
async def counted(served: Served, tmp_path: Path) -> AsyncIterator[Scene]:
    """A scorer by a net that counts words."""
    async with scene(served, FAKES[Target(served, None).role](), tmp_path) as here:
        yield here


@pytest.fixture(scope="module")
def nets(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Real nets by role, in float32."""
    folder = tmp_path_factory.mktemp("nets")
    dense = str(tiny_encoder(folder / "dense", max_tokens=32))
    return {
        "dense": DenseEncoder.load(dense, dtype="float32"),
        "late": LateEncoder.load(dense, dtype="float32"),
        "sparse": SparseEncoder.load(
            str(tiny_sparse_encoder(folder / "sparse", max_tokens=32)), dtype="float32"
        ),
        "cross": CrossEncoder.load(str(tiny_cross_encoder(folder / "cross", max_tokens=32)), dtype="float32"),
        "in_context": tiny_net(folder / "in_context"),
    }


@pytest.fixture
async def real(served: Served, nets: dict[str, Any], tmp_path: Path) -> AsyncIterator[Scene]:
    """A scorer by a real net."""
    async with scene(served, nets[Target(served, None).role], tmp_path) as here:
        yield here


class Door:
    """What every forward of a net has to pass; while it is shut they wait before it."""

    def __init__(self, net: Any) -> None:
        self.entered = threading.Semaphore(0)
        self.open = threading.Event()
        self.open.set()
        name = "vectors" if isinstance(net, WordOverlapLateEncoder) else "forward"
        self._through = getattr(net, name)
        setattr(net, name, self._forward)

    async def shut(self, call: Callable[[], Any]) -> "asyncio.Task[Any]":
        """Shut it and make a call, whose forward is before it when this returns."""
        while self.entered.acquire(blocking=False):
            pass
        self.open.clear()
        task = asyncio.create_task(call())
        await asyncio.to_thread(self.entered.acquire)
        return task

    def _forward(self, *arguments: Any) -> Any:
        self.entered.release()
        assert self.open.wait(10), "the test never opened the door"
        return self._through(*arguments)


EXPECTED: dict[str, tuple[Scale, list[float]]] = {
    # "the" is twice in the first two texts, whose lengths are so the roots of 7 and 8; the third's is 10's
    "dense": ("cosine", [2 / math.sqrt(2 * 7), 1 / math.sqrt(2 * 8), 3 / math.sqrt(2 * 10)]),
    "sparse": ("product", [2.0, 1.0, 1.0]),
    "late": ("cosine", [1.0, 0.5, 0.5]),
    "cross": ("logit", [2.0, 1.0, 1.0]),
    # of the attention of "moon" the first text has a quarter and the last the rest, of that of "sea" halves
    "in_context": ("attention", [3 / 8, 2 / 8, 3 / 8]),
}


async def test_every_text_has_its_score(counted: Scene, served: Served):
    found = await counted.score(TEXTS)
    scale, scores = EXPECTED[Target(served, None).role]
    assert found.scale == scale
    assert found.scores.dtype == np.float32
    np.testing.assert_allclose(found.scores, scores, atol=1e-3)


@pytest.mark.parametrize(
    ("served", "unit"),
    [
        ("dense", [(1 + 2 / math.sqrt(14)) / 2, 5 / 8]),
        ("sparse", [2 / 3, 1 / 2]),
        ("late", [1.0, 3 / 4]),
        ("cross", [1 / (1 + math.exp(-2)), 1 / (1 + math.exp(-1))]),
        ("in_context_cached", [1.0, 0.0]),
    ],
)
async def test_scores_on_a_scale_of_one_by_hand(served: Served, unit: list[float], counted: Scene):
    np.testing.assert_allclose((await counted.score(TEXTS[:2])).unit(), unit, rtol=1e-6)


@pytest.mark.parametrize(
    ("scores", "unit"),
    [([0.3], [1.0]), ([0.2, 0.2], [1.0, 1.0]), ([0.1, 0.3, 0.2], [0.0, 1.0, 0.5]), ([], [])],
)
def test_the_best_share_of_attention_is_1(scores: list[float], unit: list[float]):
    found = Scored("attention", np.array(scores, np.float32), 9).unit()
    np.testing.assert_allclose(found, unit, rtol=1e-6)


async def test_tokens_are_those_of_the_question_and_the_texts(counted: Scene, served: Served):
    around = {"dense": 2, "sparse": 2}.get(served, 0)
    questions = len(TEXTS) if served == "cross" else 1
    expected = questions * (2 + around) + sum(len(text.split()) + around for text in TEXTS)
    assert (await counted.score(TEXTS)).tokens == expected


async def test_scores_are_between_0_and_1_on_a_scale_of_one_and_in_the_same_order(real: Scene):
    found = await real.score(REAL_TEXTS)
    assert found.tokens > 0
    assert found.scores.shape == found.unit().shape == (len(REAL_TEXTS),)
    assert len(set(found.scores.tolist())) == len(REAL_TEXTS), "a random net tells all of them apart"
    assert found.unit().min() >= 0
    assert found.unit().max() <= 1
    assert np.argsort(-found.scores).tolist() == np.argsort(-found.unit()).tolist()


@pytest.mark.parametrize("served", [each for each in SERVED if each != "in_context_dense"])
async def test_the_order_of_texts_does_not_matter(served: Served, real: Scene):
    scores = await real.scores(REAL_TEXTS)
    turned = await real.scores(REAL_TEXTS[::-1])
    np.testing.assert_allclose(turned[::-1], scores, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("served", ["in_context_dense"])
async def test_the_order_of_texts_matters_where_each_sees_those_before_it(served: Served, real: Scene):
    scores = await real.scores(REAL_TEXTS)
    turned = await real.scores(REAL_TEXTS[::-1])
    assert np.abs(np.subtract(turned[::-1], scores)).max() > 1e-3


@pytest.mark.parametrize("served", POINTWISE)
async def test_texts_together_are_texts_alone(served: Served, real: Scene):
    alone = [(await real.scores([text]))[0] for text in REAL_TEXTS]
    np.testing.assert_allclose(await real.scores(REAL_TEXTS), alone, rtol=1e-5, atol=1e-5)


async def test_one_text_has_a_score(real: Scene):
    assert np.isfinite(await real.scores(TEXTS[:1])).tolist() == [True]


@pytest.mark.parametrize("served", ["dense"])
async def test_dense_scores_are_the_encoders_cosines(served: Served, real: Scene, nets: dict[str, Any]):
    (question,) = nets["dense"].encode([QUERY], "query")
    expected = nets["dense"].encode(REAL_TEXTS) @ question
    np.testing.assert_allclose(await real.scores(REAL_TEXTS), expected, atol=1e-6)


@pytest.mark.parametrize("served", ["sparse"])
async def test_sparse_scores_are_the_encoders_products(served: Served, real: Scene, nets: dict[str, Any]):
    questions, texts = nets["sparse"].encode([QUERY], "query"), nets["sparse"].encode(REAL_TEXTS)
    asked = dict(zip(*(each.tolist() for each in questions.row(0)), strict=True))
    expected = [
        sum(asked.get(term, 0.0) * weight for term, weight in zip(*map(np.ndarray.tolist, row), strict=True))
        for row in texts
    ]
    np.testing.assert_allclose(await real.scores(REAL_TEXTS), expected, rtol=1e-5)


@pytest.mark.parametrize("served", ["late"])
async def test_late_scores_are_maxsim_of_the_encoders_vectors(
    served: Served, real: Scene, nets: dict[str, Any]
):
    (question,) = nets["late"].encode([QUERY], "query")
    expected = [(question @ text.T).max(1).mean() for text in nets["late"].encode(REAL_TEXTS)]
    np.testing.assert_allclose(await real.scores(REAL_TEXTS), expected, atol=1e-6)


@pytest.mark.parametrize("served", ["cross"])
async def test_cross_scores_are_the_logits_of_pairs(served: Served, real: Scene, nets: dict[str, Any]):
    expected = nets["cross"].predict([(QUERY, text) for text in REAL_TEXTS])
    np.testing.assert_allclose(await real.scores(REAL_TEXTS), expected, atol=1e-5)


@pytest.mark.parametrize("served", IN_CONTEXT)
async def test_scores_in_context_are_the_nets_own(served: Served, real: Scene, nets: dict[str, Any]):
    net = nets["in_context"]
    expected = _by_itself(net, served, [cut.ids for cut in net.document_tokens([("", t) for t in TEXTS])])
    bound = 0.1 * np.ptp(expected) if served in KEPT else 1e-5  # kept in 8 bits
    np.testing.assert_allclose(await real.scores(TEXTS), expected, atol=bound, rtol=0)


def _by_itself(net: Any, served: Served, ids: list[list[int]]) -> Any:
    """Scores with nothing kept in 8 bits."""
    if served == "in_context_keys":
        (asked,) = net.ask_alone([net.question(QUERY, "keys")])
        return met(asked, np.concatenate(net.document_keys(ids)).transpose(1, 0, 2), list(map(len, ids)))
    if served == "in_context_cached":
        (reading,) = net.ask([net.question(QUERY, "cached")], [Joined(net.read_documents(ids))])
        return reading.scores
    mode = "dense" if served == "in_context_dense" else "query_aware"
    return net.rank([net.prompt(QUERY, ids, mode)])[0].scores


async def test_keys_of_texts_that_are_read_are_worth_what_stored_keys_are(
    nets: dict[str, Any], tmp_path: Path
):
    load = loading(in_context=nets["in_context"])
    async with running(tmp_path, load=load, batch_tokens=256) as service:
        service.load = load
        await service.make(components=["dense", "keys"])
        await service.put([{"id": str(number), "text": text} for number, text in enumerate(TEXTS)])
        stages = [{"stage": "dense"}, {"stage": "in_context", "mode": "keys", "weight": 1.0}]
        hits = (await service.search(QUERY, pipeline=[*stages, {"stage": "group"}]))["hits"]
        stored = {hit["id"]: hit["score"] for hit in hits}
        found = (await service.state.endpoints.score("in_context_keys", QUERY, TEXTS)).scores
    expected = [stored[str(number)] for number in range(len(TEXTS))]
    np.testing.assert_allclose(found, expected, atol=0.1 * float(np.ptp(expected)), rtol=0)


@pytest.mark.parametrize("served", KEPT)
async def test_a_text_that_comes_again_is_not_read_again(served: Served, counted: Scene):
    net = counted.running.net.net  # type: ignore[attr-defined]
    before = len(net.forwards)
    first = await counted.scores(TEXTS)
    assert read_by(net, before) == sum(len(text.split()) for text in TEXTS)
    before = len(net.forwards)
    again = await counted.score(TEXTS)
    np.testing.assert_allclose(again.scores, first, atol=1e-6)
    assert read_by(net, before) == 0
    assert again.tokens == 2 + sum(len(text.split()) for text in TEXTS)


@pytest.mark.parametrize("served", ["in_context_dense"])
async def test_texts_that_one_prompt_has_no_room_for_are_refused(served: Served, counted: Scene):
    with pytest.raises(TooLongError, match="at most 100 tokens, and 19 of 30 have room"):
        await counted.score(TEXTS[:1] * 30)  # 19 of five words, a word of instruction and two of question


@pytest.mark.parametrize("served", ["cross", *IN_CONTEXT])
async def test_there_are_scores_for_all_or_for_none(served: Served, tmp_path: Path):
    texts = [f"moon {number} a b" for number in range(60)]  # a quarter of a second
    net = FAKES[Target(served, None).role]()
    net.seconds, net.max_tokens = 0.001, 10_000
    async with scene(served, net, tmp_path) as here:
        assert len((await here.score(texts[:30])).scores) == 30
        before = len(net.forwards)
        with pytest.raises(DeadlineError, match=r"there was (no )?time for (\d+|one) of 60"):
            await here.score(texts[::-1], seconds=0.1)
        if served != "cross":
            assert read_by(net, before) == 0, "that there is no time is known before anything is read"


async def test_a_deadline_that_has_passed_is_said(counted: Scene):
    with pytest.raises(DeadlineError):
        await counted.score(TEXTS, seconds=-1.0)


async def test_a_deadline_that_passes_before_the_net_is_said(served: Served, tmp_path: Path):
    door = Door(net := FAKES[Target(served, None).role]())
    async with scene(served, net, tmp_path) as here:
        inside = await door.shut(lambda: here.score(TEXTS))
        with pytest.raises(DeadlineError):
            await here.score(TEXTS, seconds=0.05)
        door.open.set()
        await inside


async def test_a_full_queue_is_said_with_when_to_return(served: Served, tmp_path: Path):
    door = Door(net := FAKES[Target(served, None).role]())
    async with scene(served, net, tmp_path, queued_tokens=200) as here:
        inside = await door.shut(lambda: here.score(TEXTS[:1]))
        waiting = asyncio.create_task(here.running.batcher.submit([Filling()] * 200))
        while here.running.batcher.queued_tokens < 200:
            await asyncio.sleep(0.001)
        with pytest.raises(BusyError) as full:
            await here.score(TEXTS[1:])
        assert full.value.retry_after is not None
        assert full.value.retry_after > 0
        await asyncio.sleep(0.05)
        assert here.running.batcher.queued_tokens == 200, "nothing waits of a question that was refused"
        waiting.cancel()
        door.open.set()
        await inside


class Filling:
    """An item that waits before a net and never comes to it."""

    def __len__(self) -> int:
        return 1


async def test_who_goes_leaves_nothing_in_the_queue(served: Served, tmp_path: Path):
    door = Door(net := FAKES[Target(served, None).role]())
    async with scene(served, net, tmp_path) as here:
        batcher = here.running.batcher
        inside = await door.shut(lambda: here.score(TEXTS[:1]))
        before = batcher.queued_tokens
        going = asyncio.create_task(here.score(TEXTS[1:]))
        while batcher.queued_tokens == before:
            await asyncio.sleep(0.001)
        going.cancel()
        with pytest.raises(asyncio.CancelledError):
            await going
        assert batcher.queued_tokens == before
        door.open.set()
        assert len((await inside).scores) == 1


async def test_a_text_that_would_be_cut_is_scored_or_refused_as_asked(real: Scene):
    long = "the sea is water and " * 40
    assert np.isfinite(await real.scores([long, "cat"])).all()
    with pytest.raises(TooLongError, match="text 1 "):
        await real.score(["cat", long], whole=True)
    assert len((await real.score(["cat", "dog"], whole=True)).scores) == 2


async def test_a_question_that_would_be_cut_is_refused_if_asked(real: Scene):
    with pytest.raises(TooLongError):
        await real.score(["cat"], "the sea is water and " * 40, whole=True)
