"""Fusion on hand-made hits; every figure can be worked out by hand."""

import asyncio
import time
from collections.abc import Mapping
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from service.errors import DeadlineError, EncoderError
from service.pipeline import degraded, run
from service.stages import Bm25, Dense, Fuse, Group, Sparse
from service.stages.fuse import Input, fuse, lowest
from service.stages.normalise import minmax
from service.types import Hits, Scores, Search, Seqs
from tests.service.hand_made import Documents, Given, hits, scores, search

A, B, C, D = range(1, 5)


def given_twice(one: dict[int, float], two: dict[int, float], **fields: object) -> Fuse:
    """Fuse.model_construct, since these inputs are not on the wire."""
    inputs = ((Given(stage="one", found=one),), (Given(stage="two", found=two),))
    return Fuse.model_construct(**{"inputs": inputs, "budget_ms": None, **fields})


async def fused(stage: Fuse) -> Hits:
    outcome = await run([stage], search())
    assert outcome.failure is None
    return outcome.hits


async def test_reciprocal_rank_fusion():
    stage = given_twice({A: 9, B: 8, C: 7}, {C: 3, A: 2, D: 1}, method="rrf", weights=(1.0, 1.0))
    found = await fused(stage)
    assert found.seqs.tolist() == [A, C, B, D]
    assert found.scores.tolist() == pytest.approx([0.032522, 0.032266, 0.016129, 0.015873], abs=1e-6)


async def test_linear_fusion_of_min_max_scores():
    found = await fused(given_twice({A: 12, B: 9, C: 3}, {A: 0.8, B: 0.6, C: 0.7}))
    assert scores(found) == {A: 1.0, B: 0.3333, C: 0.25}


class Floored(Given):
    """Says below what its scores cannot be."""

    least: float

    @property
    def floor(self) -> float:
        return self.least


BM25, COSINE = {A: 12.0, B: 9.0, C: 3.0}, {A: 0.8, B: 0.6, C: 0.7}


@pytest.mark.parametrize(
    ("normalisation", "expected"),
    [
        ("minmax", {A: 1.0, C: 0.4, B: 0.1333}),
        ("theoretical", {A: 1.0, B: 0.8611, C: 0.8056}),
        ("zscore", {A: 0.9746, C: -0.2182, B: -0.7564}),
        ("distribution", {A: 0.6624, C: 0.4636, B: 0.3739}),
    ],
)
async def test_a_convex_combination_by_every_normalisation(normalisation: str, expected: dict[int, float]):
    lexical, dense = Floored(found=BM25, least=0), Floored(stage="two", found=COSINE, least=-1)
    stage = given_twice({}, {}, inputs=((lexical,), (dense,)), weights=(0.2, 0.8))
    assert scores(await fused(stage.model_copy(update={"normalisation": normalisation}))) == expected


async def test_by_z_scores_what_was_not_found_counts_as_much_as_the_last_that_was():
    found = await fused(given_twice({A: 3, B: 2, C: 1}, {D: 7}, normalisation="zscore", weights=(1.0, 1.0)))
    assert scores(found) == {A: 1.0, B: 0.0, C: -1.0, D: -1.0}


class Knowing(Floored):
    """Finds some of what it knows, and scores the rest when it is asked to."""

    least: float = 0
    knows: Mapping[int, float] = {}
    unwilling: bool = False

    @property
    def scores_any(self) -> bool:
        return True

    async def score(self, search: Search, seqs: Seqs) -> Scores:
        if self.unwilling:
            raise DeadlineError("too late")
        return np.array([self.knows[seq] for seq in seqs.tolist()], np.float32)


LISTS = ({A: 4.0, B: 3.0, C: 2.0}, {D: 8.0, C: 4.0})


def knowing(**fields: object) -> Fuse:
    """Both know all four passages, the first finds three of them and the second two."""
    one = Knowing(stage="one", found=LISTS[0], knows={**LISTS[0], D: 1})
    two = Knowing(stage="two", found=LISTS[1], knows={**LISTS[1], A: 2, B: 6})
    inputs = fields.pop("inputs", ((one,), (two,)))
    return given_twice({}, {}, inputs=inputs, missing="score", weights=(0.5, 0.5), **fields)


async def test_what_an_input_did_not_find_may_be_scored_by_it():
    """By the list's own statistics: A is given (2 - 4) / (8 - 4) by the second, not 0."""
    found = await fused(knowing())
    assert scores(found) == {B: 0.5, A: 0.25, D: 0.25, C: 0.0}
    assert found.raw["one"].tolist() == [3, 4, 1, 2]
    assert found.raw["two"].tolist() == [6, 2, 8, 4]
    assert scores(await fused(knowing(normalisation="theoretical"))) == {B: 0.75, A: 0.625, D: 0.625, C: 0.5}


async def test_what_a_grouped_retriever_did_not_find_is_scored_too_but_not_by_a_longer_pipeline():
    one, two = (stages[0] for stages in knowing().inputs)
    grouped = knowing(inputs=((one, Group()), (two,)))
    found = (await run([grouped], search(Documents({n: n for n in range(5)})))).hits
    assert scores(found) == {B: 0.5, A: 0.25, D: 0.25, C: 0.0}
    for rest in (Group(method="sum"), Given(found=LISTS[0])):
        found = (
            await run([knowing(inputs=((one, rest), (two,)))], search(Documents({n: n for n in range(5)})))
        ).hits
        assert scores(found)[D] == 0.5, "nothing from the first"


async def test_an_input_that_finds_and_then_cannot_score_is_said():
    one, two = (stages[0] for stages in knowing().inputs)
    one = one.model_copy(update={"unwilling": True})
    outcome = await run([knowing(inputs=((one,), (two,)))], search())
    assert scores(outcome.hits) == {D: 0.5, B: 0.5, A: 0.25, C: 0.0}
    assert [account["reason"] for account in outcome.accounts] == [
        "one did not score what others found: too late"
    ]
    assert degraded(outcome.accounts) == ["fuse"]


async def test_what_an_input_did_not_find_counts_nothing():
    found = await fused(given_twice({A: 4, B: 2}, {C: 4, D: 2}, weights=(0.75, 0.25)))
    assert scores(found) == {A: 0.75, C: 0.25, B: 0.0, D: 0.0}


async def test_every_raw_score_is_kept():
    found = await fused(given_twice({A: 12, B: 9}, {B: 0.5, C: 0.25}))
    row = {seq: row for row, seq in enumerate(found.seqs.tolist())}
    assert (found.raw["one"][row[A]], found.raw["one"][row[B]]) == (12, 9)
    assert (found.raw["two"][row[B]], found.raw["two"][row[C]]) == (0.5, 0.25)
    assert np.isnan(found.raw["two"][row[A]])
    assert np.isnan(found.raw["one"][row[C]])


async def test_two_inputs_of_the_same_kind_have_names_of_their_own():
    inputs = tuple((Given(found={A: n + 1.0, B: 0.0}),) for n in range(3))
    found = await fused(Fuse.model_construct(inputs=inputs, budget_ms=None))
    assert {name: values[0] for name, values in found.raw.items()} == {"given": 1, "given_2": 2, "given_3": 3}


async def test_equal_scores_go_to_the_smaller_passage():
    found = await fused(given_twice({D: 1, A: 0}, {C: 1, B: 0}))
    assert found.seqs.tolist() == [C, D, A, B]


async def test_documents_are_fused_by_their_best_passages():
    """Passages 1 and 2 are of document 10, each found best by another input; 3 is of document 20."""
    stage = given_twice({1: 5, 3: 4, 2: 1}, {2: 9, 3: 6, 1: 3}, unit="document", weights=(0.4, 0.6))
    outcome = await run([stage], search(Documents({1: 10, 2: 10, 3: 20})))
    assert scores(outcome.hits) == {2: 1.0, 3: 0.0}, "passage 2 gave 0.6 of it"
    assert outcome.hits.raw["one"].tolist() == [5, 4], "of the document's best passage by each input"
    assert outcome.hits.raw["two"].tolist() == [9, 6]


async def test_only_the_best_are_kept():
    assert scores(await fused(given_twice({A: 3, B: 2, C: 1}, {A: 3, B: 2}, k=1))) == {A: 1.0}


async def test_a_failed_input_is_left_out_and_said():
    inputs = ((Given(found={A: 2, B: 1}),), (Given(stage="two", failure="no weights"),))
    outcome = await run([Fuse.model_construct(inputs=inputs, budget_ms=None)], search())
    assert scores(outcome.hits) == {A: 0.5, B: 0.0}
    (account,) = outcome.accounts
    assert (account["status"], account["reason"]) == ("degraded", "two skipped: no weights")
    assert [[each["status"] for each in inner] for inner in account["inputs"]] == [["ran"], ["skipped"]]
    assert degraded(outcome.accounts) == ["two"]


async def test_a_late_input_is_left_out_at_its_own_budget():
    inputs = ((Given(found={A: 2, B: 1}),), (Given(stage="late", seconds=5.0, budget_ms=20),))
    began = time.monotonic()
    outcome = await run([Fuse.model_construct(inputs=inputs, budget_ms=None)], search())
    assert time.monotonic() - began < 1.0
    assert outcome.hits.seqs.tolist() == [A, B]
    assert degraded(outcome.accounts) == ["late"]


async def test_fusion_fails_when_all_inputs_do():
    inputs = ((Given(seconds=5.0),), (Given(failure="no weights"),))
    outcome = await run([Fuse.model_construct(inputs=inputs, budget_ms=None)], search(seconds=0.02))
    assert isinstance(outcome.failure, DeadlineError), "the first input's failure is the answer"
    assert len(outcome.hits) == 0
    swapped = await run([Fuse.model_construct(inputs=inputs[::-1], budget_ms=None)], search(seconds=0.02))
    assert isinstance(swapped.failure, EncoderError)


async def test_inputs_run_side_by_side():
    inputs = tuple((Given(found={n: 1.0}, seconds=0.1),) for n in range(10))
    began = asyncio.get_running_loop().time()
    await fused(Fuse.model_construct(inputs=inputs, budget_ms=None))
    assert asyncio.get_running_loop().time() - began < 0.9


def test_weights_are_one_for_each_input():
    with pytest.raises(ValidationError, match="3 weights for 1 inputs"):
        Fuse(inputs=[[{"stage": "bm25"}]], weights=[1, 2, 3])


def test_there_is_no_real_score_of_a_rank():
    with pytest.raises(ValidationError, match="what was not found has no rank"):
        Fuse(method="rrf", missing="score", inputs=[[{"stage": "bm25"}]])


@pytest.mark.parametrize(
    ("stages", "floor"),
    [
        ([Bm25()], 0),
        ([Dense()], -1),
        ([Dense(), Group()], -1),
        ([Dense(), Group(method="sum", n=3)], -3),
        ([Sparse(), Group(method="sum", n=3)], 0),
        ([Fuse(inputs=[[{"stage": "dense"}]])], 0),
        ([Fuse(inputs=[[{"stage": "dense"}]], missing="score")], None),
        ([Fuse(inputs=[[{"stage": "dense"}]], normalisation="zscore"), Group(method="sum")], None),
        ([Fuse(inputs=[[{"stage": "dense"}]], normalisation="zscore", method="rrf")], 0),
    ],
)
def test_theoretical_scores_are_for_inputs_whose_lowest_score_is_known(stages, floor: float | None):
    assert lowest(tuple(stages)) == floor
    inputs = [[stage.model_dump() for stage in stages]]
    if floor is None:
        with pytest.raises(ValidationError, match="none is known of fuse"):
            Fuse(inputs=inputs, normalisation="theoretical")
    else:
        Fuse(inputs=inputs, normalisation="theoretical")


POSITIVE = st.dictionaries(st.integers(0, 20), st.floats(0, 100, width=32), max_size=8)


@given(POSITIVE)
@settings(max_examples=50)
def test_a_ranking_fused_with_itself_keeps_its_order(one: dict[int, float]):
    ranking = hits(one)
    found = fuse([Input(ranking, ranking.seqs, minmax(ranking.scores))] * 2, 100)
    score, order = scores(found), ranking.seqs.tolist()
    assert all(score[better] >= score[worse] for better, worse in pairwise(order))


@given(POSITIVE, POSITIVE)
@settings(max_examples=50)
def test_the_order_of_the_inputs_does_not_matter(one: dict[int, float], two: dict[int, float]):
    given = [hits(one, "one"), hits(two, "two")]
    inputs = [Input(each, each.seqs, minmax(each.scores)) for each in given]
    forwards, backwards = fuse(inputs, 100), fuse(inputs[::-1], 100)
    assert scores(forwards) == scores(backwards)
    assert list(scores(forwards)) == list(scores(backwards))


@given(POSITIVE, POSITIVE)
@settings(max_examples=30, deadline=None)
def test_reciprocal_ranks_do_not_change_with_the_scale_of_scores(
    one: dict[int, float], two: dict[int, float]
):
    stage = given_twice(one, two, method="rrf")
    order = {score: rank for rank, score in enumerate(sorted(set(one.values())))}
    other = given_twice({seq: order[score] ** 3 - 9 for seq, score in one.items()}, two, method="rrf")
    assert scores(asyncio.run(fused(stage))) == scores(asyncio.run(fused(other)))


@given(POSITIVE, POSITIVE, st.sampled_from([0.25, 2.0, 8.0]), st.sampled_from(["minmax", "zscore"]))
@settings(max_examples=30, deadline=None)
def test_the_units_of_an_input_do_not_matter(
    one: dict[int, float], two: dict[int, float], unit: float, normalisation: str
):
    stage = given_twice(one, two, normalisation=normalisation)
    other = given_twice({s: x * unit for s, x in one.items()}, two, normalisation=normalisation)
    assert scores(asyncio.run(fused(stage))) == pytest.approx(scores(asyncio.run(fused(other))), abs=1e-3)
