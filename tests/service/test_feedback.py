"""Feedback on vectors that can be worked out by hand, and on segments before, after and between fusions."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from service.engine import needs
from service.snapshot import Snapshot
from service.stages import Bm25, Dense, Feedback, Fuse, Sparse
from service.stages.feedback import Weights, rocchio
from service.types import Hits, Search, Stage
from tests.service.hand_made import Given, hits, scores
from tests.service.on_disk import asked, collection, folder

QUESTION = np.array([1.0, 0.0])
NEAR = np.array([[0.8, 0.6], [0.6, 0.8]])
NONE = np.empty((0, 2))


def test_the_question_moves_towards_the_best_hits():
    average = Feedback(method="average")._weights(len(NEAR))
    assert rocchio(QUESTION, NEAR, NONE, average) == pytest.approx([0.8, 0.4667], abs=5e-5)
    assert rocchio(QUESTION, NEAR, NONE, Feedback()._weights(2)) == pytest.approx([0.82, 0.42])


def test_and_away_from_the_last():
    far = np.array([[0.0, 1.0], [0.0, 0.5]])
    assert rocchio(QUESTION, NEAR, far, Weights(0.4, 0.6, 0.2)) == pytest.approx([0.82, 0.27])


@given(st.integers(1, 6), st.integers(0, 99))
def test_the_average_is_a_rocchio_of_equal_weights(m: int, seed: int):
    vectors = np.random.default_rng(seed).standard_normal((m + 1, 4))
    average = Feedback(method="average")._weights(m)
    assert average == pytest.approx((1 / (m + 1), m / (m + 1), 0))
    moved = rocchio(vectors[0], vectors[1:], np.empty((0, 4)), average)
    assert moved == pytest.approx(vectors.mean(axis=0))


TEXTS = [
    "tide tide tide moon",
    "moon moon moon moon",
    "moon sea moon sea",
    "sea sea sea sea",
    "cat cat dog dog",
    "dog dog rain rain",
]


@pytest.fixture(scope="module")
def six(tmp_path_factory: pytest.TempPathFactory) -> Snapshot:
    """Passages 0 to 5, in two segments."""
    return collection(tmp_path_factory.mktemp("six"), TEXTS, cuts=[3])


async def found(snapshot: Snapshot, query: str, *stages: Stage, **how: object) -> Hits:
    outcome = await asked(snapshot, query, *stages, **how)
    assert [account["status"] for account in outcome.accounts] == ["ran"] * len(stages)
    return outcome.hits


async def test_what_is_like_the_best_hits_is_found_though_it_shares_no_word(six: Snapshot):
    """`moon` finds 1, 2 and 0; 2 is half about the sea, as 3 is wholly; 4 and 5 stay strangers."""
    plain = await found(six, "moon", Dense())
    assert plain.seqs.tolist() == [1, 2, 0, 3, 4, 5]
    assert plain.scores[3:].tolist() == [0, 0, 0]
    again = await found(six, "moon", Dense(), Feedback(m=2))
    moon, sea = 0.4 + 0.6 * (1 + 0.5**0.5) / 2, 0.6 * 0.5**0.5 / 2
    assert again.seqs[3] == 3
    assert again.scores[3:].tolist() == pytest.approx([sea / np.hypot(moon, sea), 0, 0], abs=0.005)


async def test_any_stage_may_have_found_the_hits_and_their_scores_stay_with_them(six: Snapshot):
    words = await found(six, "sea", Bm25())
    assert words.seqs.tolist() == [3, 2]
    again = await found(six, "sea", Bm25(), Feedback(component="dense", method="average", m=1, k=4))
    assert again.seqs.tolist() == [3, 2, 0, 1]
    assert again.raw["bm25"].tolist()[:2] == words.scores.tolist()
    assert np.isnan(again.raw["bm25"][2:]).all()
    assert np.array_equal(again.raw["feedback"], again.scores)


@pytest.mark.parametrize("component", ["dense", "sparse"])
async def test_without_hits_or_by_none_of_them_the_question_is_as_it_was(six: Snapshot, component: str):
    stage = {"dense": Dense, "sparse": Sparse}[component]()
    plain = await found(six, "moon cat sea", stage)
    for before, m in ((stage, 0), (Given(), 5)):
        again = await found(six, "moon cat sea", before, Feedback(component=component, m=m))
        assert again.seqs.tolist() == plain.seqs.tolist()
        assert np.array_equal(again.scores, plain.scores)


async def test_fewer_hits_than_are_asked_for_are_those_there_are(six: Snapshot):
    both = [await found(six, "tide", Bm25(), Feedback(m=m, gamma=0.5, bottom=9)) for m in (1, 100)]
    assert scores(both[0]) == scores(both[1]), "and the last hits are not the best ones again"


async def test_the_last_hits_take_off(six: Snapshot):
    usual = scores(await found(six, "moon dog", Dense(), Feedback(m=1)))
    less = scores(await found(six, "moon dog", Dense(), Feedback(m=1, gamma=0.2, bottom=1)))
    last = (await found(six, "moon dog", Dense())).seqs[-1]
    assert less[last] < usual[last]
    assert Feedback(m=1, bottom=3)._chosen(await found(six, "moon", Dense()))[1].tolist() == []


async def test_sparse_feedback_adds_the_heaviest_terms_of_the_best_hits(six: Snapshot):
    """Weights are 1 a word: question {moon: 1}, best hits {moon}, {moon, sea} and {tide, moon}.

    Their mean is moon (1 + 1/2 + 1/2) / 3, sea 1/6 and tide 1/6; of the two sea and tide one is kept.
    """
    plain = await found(six, "moon", Sparse())
    assert plain.seqs.tolist() == [0, 1, 2], "equal scores"
    again = scores(await found(six, "moon", Sparse(), Feedback(component="sparse", m=3)))
    moon, other = 0.4 + 0.6 * 2 / 3, 0.6 / 6
    assert again == pytest.approx({0: moon + other, 2: moon + other, 1: moon, 3: other}, abs=1e-3)
    two = scores(await found(six, "moon", Sparse(), Feedback(component="sparse", m=3, terms=2)))
    moon, other = 0.4 + 0.6 * 0.8, 0.6 * 0.2
    assert sorted(two.values(), reverse=True)[:3] == pytest.approx([moon + other, moon, moon], abs=1e-3)
    assert set(scores(await found(six, "moon", Sparse(), Feedback(component="sparse", terms=1)))) == {0, 1, 2}


async def test_terms_of_the_last_hits_are_taken_off_down_to_nothing(six: Snapshot):
    first = Given(found={1: 2.0, 3: 1.0})
    usual = Feedback(component="sparse", m=1, gamma=0.5, bottom=1)
    assert set(scores(await found(six, "moon sea", first, usual))) == {0, 1, 2}, "sea is gone"
    harsh = usual.model_copy(update={"gamma": 1e3, "alpha": 1e-9, "beta": 0.0})
    plain = await found(six, "sea", Sparse())
    assert scores(await found(six, "sea", first, harsh)) == scores(plain), "nothing is left but the question"


async def test_a_question_of_no_known_word_is_asked_by_its_hits(six: Snapshot):
    stages = (Given(found={3: 1.0}), Feedback(component="sparse"))
    assert scores(await found(six, "?", *stages)) == pytest.approx({2: 0.6, 3: 0.6}, abs=1e-3)


async def test_the_dead_and_the_forbidden_are_not_found(tmp_path: Path):
    snapshot = collection(tmp_path, TEXTS, cuts=[2], gone=[1])
    for component, stage in (("dense", Dense()), ("sparse", Sparse())):
        again = await found(snapshot, "moon sea", stage, Feedback(component=component), documents=[1, 2, 4])
        assert set(again.seqs.tolist()) <= {2, 4}


async def test_an_empty_collection_has_nothing_to_find(tmp_path: Path):
    assert len(await found(collection(tmp_path, []), "moon", Dense(), Feedback())) == 0


class AtOnce(Given):
    async def __call__(self, search: Search, before: Hits) -> Hits:
        return hits(self.found)


@pytest.mark.parametrize("component", ["dense", "sparse"])
async def test_feedback_that_has_no_time_leaves_the_hits_as_they_are(six: Snapshot, component: str):
    outcome = await asked(
        six, "moon", AtOnce(found={3: 1.0, 4: 0.5}), Feedback(component=component), seconds=-1.0
    )
    assert scores(outcome.hits) == {3: 1.0, 4: 0.5}
    assert [account["status"] for account in outcome.accounts] == ["ran", "skipped"]


def test_it_needs_the_component_that_it_searches():
    assert needs([Bm25(), Feedback()]) == {"bm25", "dense"}
    assert needs([Bm25(), Feedback(component="sparse")]) == {"bm25", "sparse"}
    assert (Feedback().floor, Feedback(component="sparse").floor) == (-1, 0)
    assert not Feedback().starts


def test_a_question_of_nothing_is_refused():
    with pytest.raises(ValidationError, match="nothing would be asked for"):
        Feedback(alpha=0, beta=0)


# "To Interpolate or not to Interpolate": words fused in before feedback, after it, or both.

LEXICAL, DENSE = Bm25(), Dense()


def compositions(feedback: Feedback, weights: tuple[float, float]) -> dict[str, tuple[Stage, ...]]:
    def fused(*inputs: Sequence[Stage]) -> Fuse:
        return Fuse(inputs=tuple(map(tuple, inputs)), weights=weights)

    return {
        "pre": (fused([LEXICAL], [DENSE]), feedback),
        "post": (fused([LEXICAL], [DENSE, feedback]),),
        "both": (fused([LEXICAL], [fused([LEXICAL], [DENSE]), feedback]),),
    }


QUERY = "tide sea"


async def test_without_feedback_after_and_both_are_fusion_and_before_is_dense(six: Snapshot):
    ways = compositions(Feedback(m=0), (0.5, 0.5))
    got = {name: await found(six, QUERY, *stages) for name, stages in ways.items()}
    fused = await found(six, QUERY, Fuse(inputs=((LEXICAL,), (DENSE,))))
    assert scores(got["post"]) == scores(got["both"]) == scores(fused)
    assert scores(got["pre"]) == scores(await found(six, QUERY, DENSE))


async def test_with_feedback_words_matter_where_they_come_in(six: Snapshot):
    """`sea` is nearest to the question, by words and cosine together it is `tide`, the rarer word."""
    ways = compositions(Feedback(m=1), (0.5, 0.5))
    got = {name: scores(await found(six, QUERY, *stages)) for name, stages in ways.items()}
    assert len({tuple(each.items()) for each in got.values()}) == 3


async def test_without_weight_of_words_all_three_are_dense_feedback(six: Snapshot):
    ways = compositions(Feedback(m=2), (0.0, 1.0))
    dense = await found(six, QUERY, DENSE, Feedback(m=2))
    for name, stages in ways.items():
        assert (await found(six, QUERY, *stages)).seqs.tolist() == dense.seqs.tolist(), name


async def test_raw_scores_tell_how_each_hit_was_found(six: Snapshot):
    (both,) = compositions(Feedback(m=2), (0.5, 0.5))["both"]
    assert set((await found(six, QUERY, both)).raw) == {"bm25", "bm25_2", "dense", "feedback"}


WORDS = ["moon", "sea", "tide", "rain", "sun", "cat"]
TEXT = st.lists(st.sampled_from(WORDS), min_size=1, max_size=4).map(" ".join)


@given(
    texts=st.lists(TEXT, min_size=1, max_size=8),
    data=st.data(),
    component=st.sampled_from(["dense", "sparse"]),
    method=st.sampled_from(["average", "rocchio"]),
    m=st.integers(0, 4),
    k=st.integers(1, 8),
)
@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_any_segmentation_gives_the_same_hits(texts, data, component, method, m, k):
    cuts = data.draw(st.sets(st.integers(1, len(texts))))
    gone = data.draw(st.sets(st.integers(0, len(texts) - 1), max_size=2))
    query = " ".join(data.draw(st.lists(st.sampled_from(WORDS), min_size=1, max_size=4)))
    stages = (
        Fuse(inputs=((Bm25(),), (Dense(),))),
        Feedback(component=component, method=method, m=m, k=k, gamma=0.1, bottom=2),
    )
    with folder() as root:
        whole, cut, merged = (
            asyncio.run(asked(snapshot, query, *stages)).hits
            for snapshot in (
                collection(root, texts, gone=gone),
                collection(root, texts, cuts, gone),
                collection(root, texts, cuts, gone, merge=True),
            )
        )
    assert whole.seqs.tolist() == cut.seqs.tolist() == merged.seqs.tolist()
    assert np.array_equal(whole.scores, cut.scores)
    assert np.array_equal(whole.scores, merged.scores)
