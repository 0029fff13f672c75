"""Fusion on hand-made hits; every figure can be worked out by hand."""

import asyncio
import time
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from service.errors import DeadlineError, EncoderError
from service.pipeline import degraded, run
from service.stages.fuse import Fuse, Input, fuse
from service.stages.normalise import minmax
from service.types import Hits
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
