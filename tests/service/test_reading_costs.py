from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from models.in_context.items import (
    AloneItem,
    AskItem,
    Block,
    DocumentItem,
    Item,
    Prompt,
    PromptItem,
    Question,
)
from models.in_context.read_out import BlockRank, Drop
from service.reading_costs import FADE, Costs, Rate

QUESTION = Question(Block([1] * 10, range(10)), range(0), BlockRank())
LENGTHS = np.array([100, 50, 200])


def asking(*lengths: int) -> AskItem:
    return AskItem(QUESTION, cast(Any, SimpleNamespace(lengths=list(lengths))))


def prompt(mode: Any, *lengths: int) -> PromptItem:
    return PromptItem(Prompt(mode, [1] * 20, [[1] * length for length in lengths], QUESTION))


def measured(*forwards: tuple[list[Item], float]) -> Costs:
    costs = Costs()
    for items, seconds in forwards:
        costs.measure(items, seconds)
    return costs


def test_a_rate_is_that_of_the_last_forwards():
    rate = Rate()
    assert rate.seconds == 0.0
    rate.measure(100, 1.0)
    assert rate.seconds == pytest.approx(0.01)
    rate.measure(100, 3.0)
    assert rate.seconds == pytest.approx((FADE * 1.0 + 3.0) / (FADE * 100 + 100))
    for _ in range(40):
        rate.measure(10, 0.2)
    assert rate.seconds == pytest.approx(0.02, rel=0.01)


def test_asking_costs_the_question_and_what_it_is_asked_over():
    costs = measured(([AloneItem(QUESTION)], 0.1), ([asking(300, 100)], 0.5))
    np.testing.assert_allclose(costs.of_asking(10, LENGTHS), [0.1 + 0.1, 0.1 + 0.15, 0.1 + 0.35])
    np.testing.assert_allclose(costs.of_asking(20, LENGTHS[:1]), [0.2 + 0.1])


def test_two_questions_of_a_forward_are_two_questions():
    costs = measured(([AloneItem(QUESTION)], 0.1), ([asking(300), asking(100)], 0.6))
    assert costs.asked.seconds == pytest.approx(0.001)


def test_documents_cost_their_tokens():
    assert measured(([DocumentItem([1] * 30), DocumentItem([1] * 20)], 0.5)).document.seconds == 0.01


def test_a_prompt_costs_its_tokens_and_a_longer_one_of_mode_dense_their_square():
    costs = measured(([prompt("query_aware", 70)], 1.0), ([prompt("dense", 70)], 1.0))
    np.testing.assert_allclose(costs.of_prompts("query_aware", 30, LENGTHS), [1.3, 1.8, 3.8])
    np.testing.assert_allclose(costs.of_prompts("dense", 30, LENGTHS), [1.3**2, 1.8**2, 3.8**2])
    np.testing.assert_allclose(costs.of_prompts("dense", 0, LENGTHS[:0:-1] // 10), [0.2, 0.25])


def test_what_dropped_documents_on_the_way_says_nothing():
    dropping = replace(QUESTION, drop=Drop(0, 0.5))
    items = [
        AskItem(dropping, cast(Any, SimpleNamespace(lengths=[9]))),
        PromptItem(Prompt("query_aware", [1], [[1]], dropping)),
    ]
    costs = measured(*(([item], 1.0) for item in items))
    assert costs.asked.seconds == costs.prompt["query_aware"].seconds == 0.0


def test_what_was_measured_can_be_forgotten():
    costs = measured(([AloneItem(QUESTION)], 0.1), ([prompt("dense", 70)], 1.0))
    costs.forget()
    assert costs.question.seconds == costs.prompt["dense"].seconds == 0.0
