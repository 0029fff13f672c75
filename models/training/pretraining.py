"""Pairs of a question and a document made from text alone, for collections that nobody has judged.

Inverse cloze (ICT): a sentence is the question, and what stood around it the document. Body first selection
(BFS): a sentence of a document's beginning is the question, and any other passage of the document answers.
Chang et al., "Pre-training Tasks for Embedding-based Large-scale Retrieval", ICLR 2020, arXiv 2002.03932,
section 3.2.
"""

import random
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

FEWEST_WORDS, MOST_WORDS = 5, 40
"""Of a sentence that is made a question: shorter ones ask nothing, longer ones are lists and tables."""


@dataclass(frozen=True, slots=True)
class Passage:
    """Sentences that stand together in a document, which `document` names; in the order of the text."""

    document: str
    title: str
    sentences: tuple[str, ...]

    @property
    def text(self) -> str:
        """Its sentences with a space between."""
        return " ".join(self.sentences)


@dataclass(frozen=True, slots=True)
class Pair:
    """A question, and the passage that answers: its place among those given, and its text, which may lack
    the question.
    """

    query: str
    place: int
    text: str


def ict(passages: Sequence[Passage], seed: int, keep: float = 0.1) -> Iterator[Pair]:
    """Make a pair of every passage that has a fit sentence and another, in order.

    The sentence is drawn from those of 5 to 40 words that no other passage has: boilerplate would have many
    answers. It stays in the passage in a share `keep` of the pairs, so that saying the same words still
    counts; else whatever repeats it goes too. The same passages and seed make the same pairs. ValueError
    unless 0 <= keep <= 1.
    """
    if not 0 <= keep <= 1:
        raise ValueError(f"keep is a share from 0 to 1, not {keep}")
    chance, said = random.Random(seed), _said(passages)  # noqa: S311 - a sample, not a secret
    for place, passage in enumerate(passages):
        kept, draw = chance.random() < keep, chance.random()
        fit = _fit(passage, said)
        if not fit:
            continue
        query = fit[int(draw * len(fit))]
        rest = " ".join(sentence for sentence in passage.sentences if query not in sentence)
        if rest:
            yield Pair(query, place, passage.text if kept else rest)


def bfs(passages: Sequence[Passage], seed: int) -> Iterator[Pair]:
    """Make a pair of every document of several passages whose first has a fit sentence, as `ict` does.

    The passages of a document are neighbours, its first one first. The same passages and seed make the same
    pairs.
    """
    chance, said = random.Random(seed), _said(passages)  # noqa: S311 - a sample, not a secret
    for first, others in _documents(passages):
        draw, other = chance.random(), chance.random()
        fit = _fit(passages[first], said)
        if fit and others:
            place = others[int(other * len(others))]
            yield Pair(fit[int(draw * len(fit))], place, passages[place].text)


def _said(passages: Sequence[Passage]) -> Counter[str]:
    """In how many passages each sentence is."""
    return Counter(sentence for passage in passages for sentence in set(passage.sentences))


def _fit(passage: Passage, said: Counter[str]) -> list[str]:
    """The sentences that can be questions."""
    long = (each for each in passage.sentences if FEWEST_WORDS <= len(each.split()) <= MOST_WORDS)
    return [each for each in long if said[each] == 1]


def _documents(passages: Sequence[Passage]) -> Iterator[tuple[int, range]]:
    """The place of each document's first passage, and those of its others."""
    first = 0
    for place in range(1, len(passages) + 1):
        if place == len(passages) or passages[place].document != passages[first].document:
            yield first, range(first + 1, place)
            first = place
