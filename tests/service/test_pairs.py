"""Scores of pairs: each as if it were alone, texts of one question together."""

import asyncio
from collections.abc import Sequence
from typing import Literal

import numpy as np
import pytest

from service.errors import TooLongError
from service.scorers.base import Scored
from service.scorers.pairs import AT_ONCE, clipped, score_pairs
from tests.nets import WordOverlapEncoder


class Shared:
    """Scores a text by how many of its letters the question has; a text is as many tokens as letters."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, list[str]]] = []
        self.ended: list[str] = []
        self.most = 0  # that were asked at the same time
        self.blamed: Literal["text", "question"] = "text"

    async def score(self, query: str, documents: Sequence[str], until: float, *, whole: bool) -> Scored:
        self.asked.append((query, list(documents)))
        self.most = max(self.most, len(self.asked) - len(self.ended))
        if query == "long":
            raise TooLongError(self.blamed, 0 if self.blamed == "text" else None, "is too long")
        try:
            await asyncio.sleep(5 if query == "slow" else 0)
        finally:
            self.ended.append(query)
        scores = [sum(letter in query for letter in text) for text in documents]
        return Scored("product", np.array(scores, np.float32), sum(map(len, documents)))


async def test_scores_are_in_the_order_of_the_pairs_and_a_question_is_asked_once():
    scorer = Shared()
    pairs = [("ab", "a"), ("cd", "c"), ("ab", "abba"), ("cd", "xyz")]
    found = await score_pairs(scorer, pairs, 9.0, whole=False)
    assert found.scores.tolist() == [1.0, 1.0, 4.0, 0.0]
    assert (found.scale, found.tokens) == ("product", 1 + 1 + 4 + 3)
    assert scorer.asked == [("ab", ["a", "abba"]), ("cd", ["c", "xyz"])]


async def test_the_first_error_is_the_answer_and_ends_the_rest():
    scorer = Shared()
    with pytest.raises(TooLongError, match="text 1 is too long"):
        await score_pairs(scorer, [("slow", "a"), ("long", "b")], 9.0, whole=True)
    assert scorer.ended == ["slow"]


async def test_an_error_names_the_place_among_all_pairs():
    scorer = Shared()
    scorer.blamed = "question"
    with pytest.raises(TooLongError, match="question 2 is too long"):
        await score_pairs(scorer, [("a", "a"), ("b", "b"), ("long", "c"), ("long", "d")], 9.0, whole=True)
    with pytest.raises(TooLongError, match="the question is too long"):
        await score_pairs(scorer, [("long", "a"), ("long", "b")], 9.0, whole=True)


async def test_many_questions_leave_room_in_the_queue():
    scorer = Shared()
    found = await score_pairs(scorer, [(f"question {n}", "q") for n in range(200)], 9.0, whole=False)
    assert found.scores.tolist() == [1.0] * 200
    assert scorer.most == AT_ONCE < 200


def test_texts_are_cut_to_so_many_tokens_and_questions_are_not():
    pairs = [("moon and tide", "moon and tide"), ("a", "cat"), ("b", "ab cd"), ("c", "")]
    cut = [("moon and tide", "moon and"), ("a", "cat"), ("b", "ab cd"), ("c", "")]
    assert clipped(WordOverlapEncoder(), pairs, 2) == cut
    assert clipped(WordOverlapEncoder(), pairs, 3) == pairs
    assert clipped(WordOverlapEncoder(), cut[:2], 1) == [("moon and tide", "moon"), ("a", "cat")]
