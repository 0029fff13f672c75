"""Pairs of a question and a text each, where many questions may have one text and one may have many."""

import asyncio
from collections.abc import Sequence
from typing import cast

import numpy as np

from models.roles import Loaded
from service.embedding import Reader, cut
from service.errors import TooLongError
from service.scorers.base import Scored, Scorer
from service.together import together

Pair = tuple[str, str]

AT_ONCE = 64
"""Questions that are in the queue together: enough to fill forwards, and others find room beside them."""


def clipped(net: Loaded, pairs: Sequence[Pair], most: int) -> list[Pair]:
    """The same pairs with texts of at most `most` tokens, special ones not counted; for worker threads."""
    # Most texts are short, and a token is a byte at least, so these need no counting.
    places = [place for place, (_, text) in enumerate(pairs) if len(text.encode()) > most]
    texts = cut(cast(Reader, net), [pairs[place][1] for place in places], most)
    found = list(pairs)
    for place, text in zip(places, texts, strict=True):
        found[place] = (pairs[place][0], text)
    return found


async def score_pairs(scorer: Scorer, pairs: Sequence[Pair], until: float, *, whole: bool) -> Scored:
    """The scores of pairs, in order; texts of the same question are scored together.

    At least one pair. Errors are those of `Scorer.score`; the first one ends the rest.
    """
    places: dict[str, list[int]] = {}
    for place, (question, _) in enumerate(pairs):
        places.setdefault(question, []).append(place)
    gate = asyncio.Semaphore(AT_ONCE)

    async def ask(question: str) -> Scored:
        async with gate:
            texts = [pairs[place][1] for place in places[question]]
            try:
                return await scorer.score(question, texts, until, whole=whole)
            except TooLongError as error:
                raise _placed(error, places[question]) if len(places) > 1 else error from None

    async with together() as group:
        tasks = [group.create_task(ask(question)) for question in places]
    found = [task.result() for task in tasks]
    scores = np.empty(len(pairs), np.float32)
    for group_places, part in zip(places.values(), found, strict=True):
        scores[group_places] = part.scores
    return Scored(found[0].scale, scores, sum(part.tokens for part in found))


def _placed(error: TooLongError, places: Sequence[int]) -> TooLongError:
    """An error about one question's texts, or about that question, as one about pairs at these places."""
    if error.field == "question":
        return error.at(places[0])
    return error if error.index is None else error.at(places[error.index])
