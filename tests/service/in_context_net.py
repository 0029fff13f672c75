"""A net that reads in context by word overlap: what it attends to can be counted by eye.

A token is a word. Each word of the question gives all its attention to the same words of the candidates, in
equal parts: of "moon", a passage with one of the candidates' four moons has a quarter. A score is the mean
over the words of the question (a word that no candidate has gives to all words alike). It reads 4 words of
a title, 16 of a text and 8 of a question, and a prompt of 100.
"""

import threading
import time
from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray

from models.in_context.items import (
    AloneItem,
    AskItem,
    Block,
    DocumentItem,
    Item,
    KeyQuestion,
    Mode,
    Prompt,
    PromptItem,
    Question,
)
from models.in_context.read_out import BlockRank, Drop, Reading, ReadOut
from models.in_context.recipe import Recipe
from models.in_context.states import States
from tests.nets import WORD, WordOverlapKeysNet

SHARP = 12.0  # the logit of two words that are the same; e**-12 is what others get


class WordOverlapInContextNet(WordOverlapKeysNet):
    """What the service asks of `models.in_context.net.InContextNet`.

    `forwards` has the items of every forward since it was started. A forward waits while the gate is shut,
    and takes `seconds` a token of documents that pass through it.
    """

    name = "word-overlap-in-context"
    recipe = Recipe(name)
    head_dim = 256  # so many words can be told apart
    layer = 1
    dtype, device = torch.float32, "cpu"
    question_words, max_tokens = 8, 100

    def __init__(self, fingerprint: str = "word-overlap-in-context", seconds: float = 0.0) -> None:
        super().__init__(fingerprint)
        self.seconds = seconds
        self.forwards: list[list[Item]] = []
        self.entered = threading.Semaphore(0)
        self.gate = threading.Event()
        self.gate.set()
        self._numbers: dict[str, int] = {}

    def ids(self, text: str) -> list[int]:
        """Words are numbered as they come."""
        found = [self._numbers.setdefault(word, len(self._numbers)) for word in WORD.findall(text.lower())]
        assert len(self._numbers) <= self.head_dim, "two words would be one"
        return found

    def pieces(self, ids: Sequence[int]) -> list[str]:
        words = {number: word for word, number in self._numbers.items()}
        return [words[number] for number in ids]

    def question(
        self, query: str, mode: Mode, read: ReadOut | None = None, drop: Drop | None = None
    ) -> Question:
        if drop is not None and drop.layer >= self.layer:
            raise ValueError(f"documents are dropped at a layer from 0 to 0, not at {drop.layer}")
        ids = self.ids(query)
        kept = ids[: self.question_words]
        lost = len(ids) - len(kept)
        return Question(Block(kept, range(len(kept))), range(0), BlockRank("words"), drop=drop, lost=lost)

    def prompt(
        self,
        query: str,
        documents: Sequence[Sequence[int]],
        mode: Mode,
        read: ReadOut | None = None,
        drop: Drop | None = None,
    ) -> Prompt:
        return Prompt(mode, [0], documents, self.question(query, mode, read, drop))

    def forward(self, items: Sequence[Item]) -> NDArray[np.object_]:
        self.forwards.append(list(items))
        self.entered.release()
        assert self.gate.wait(10), "the test never opened the gate"
        time.sleep(self.seconds * sum(map(documents_in, items)))
        rows = np.empty(len(items), np.object_)
        for number, item in enumerate(items):
            rows[number] = self._answer(item)
        return rows

    def _answer(self, item: Item) -> Any:
        match item:
            case DocumentItem(ids):
                return self._states(ids)
            case AloneItem(question):
                return self._rows(question)
            case AskItem(question, source):
                keys = torch.empty(self.kv_heads, sum(source.lengths), self.head_dim)
                source.fill(self.layer, keys, None)
                return self._reading(question, keys[0].numpy(), list(source.lengths))
            case PromptItem(prompt):
                keys = np.concatenate([self.keys(ids)[:, 0] for ids in prompt.documents])
                return self._reading(prompt.question, keys, [len(ids) for ids in prompt.documents])
        raise AssertionError(item)

    @property
    def instruction(self) -> States:
        """What documents are like: nothing in particular."""
        states = self._states([0])
        return States(torch.zeros_like(states.keys), torch.zeros_like(states.values))

    def _states(self, ids: list[int]) -> States:
        keys = torch.from_numpy(self.keys(ids)).transpose(0, 1)
        return States(torch.stack([torch.zeros_like(keys), keys]), torch.zeros_like(keys)[None])

    def _rows(self, question: Question) -> KeyQuestion:
        vectors = SHARP * np.eye(self.head_dim, dtype=np.float32)[question.block.ids]
        number = len(vectors)
        weights = np.full(number, 1 / number, np.float32)
        return KeyQuestion(vectors, np.zeros(number, np.int64), weights)

    def _reading(self, question: Question, keys: NDArray[np.float32], lengths: list[int]) -> Reading:
        asked = self._rows(question)
        odds = np.exp(asked.vectors @ keys.T)
        mass = (asked.weights @ (odds / odds.sum(axis=1, keepdims=True))).astype(np.float32)
        tokens = np.split(mass, np.cumsum(lengths)[:-1])
        return Reading(np.array([each.sum() for each in tokens], np.float32), tuple(tokens))


def documents_in(item: Item) -> int:
    """How many tokens of documents pass through a net for an item."""
    if isinstance(item, PromptItem):
        return item.prompt.read
    return len(item) if isinstance(item, DocumentItem) else 0


def read_by(net: Any, since: int = 0) -> int:
    """How many tokens of documents passed through a net since its forward of this number."""
    forwards = cast(list[list[Item]], net.forwards)
    return sum(documents_in(item) for batch in forwards[since:] for item in batch)
