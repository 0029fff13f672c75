"""What it has cost lately to read in context, so that it can be said beforehand what there is time for."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.in_context.items import AloneItem, AskItem, DocumentItem, Item, Mode, PromptItem

FADE = 0.8
"""How much what was measured before counts after another forward."""

Lengths = NDArray[np.int64]  # tokens of documents, in the order of the candidates
Seconds = NDArray[np.floating[Any]]


class Rate:
    """What a unit of something has cost lately, in seconds; 0 before it was measured."""

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """Begin anew."""
        self.size = 0.0  # units of the last measurement
        self._units = self._seconds = 0.0

    @property
    def seconds(self) -> float:
        """Seconds a unit."""
        return self._seconds / self._units if self._units else 0.0

    def measure(self, units: float, seconds: float) -> None:
        """Take in another measurement."""
        self.size = units
        self._units = FADE * self._units + units
        self._seconds = FADE * self._seconds + seconds


@dataclass(frozen=True)
class Costs:
    """Of tokens: of documents that are read, of questions, of documents asked over, of whole prompts."""

    document: Rate = field(default_factory=Rate)
    question: Rate = field(default_factory=Rate)
    asked: Rate = field(default_factory=Rate)
    prompt: dict[Mode, Rate] = field(default_factory=lambda: {"query_aware": Rate(), "dense": Rate()})

    def of_asking(self, question: int, documents: Lengths) -> Seconds:
        """Seconds of a question over the first one of these documents, the first two, and so on."""
        over: Seconds = np.cumsum(documents) * self.asked.seconds
        return question * self.question.seconds + over

    def of_prompts(self, mode: Mode, rest: int, documents: Lengths) -> Seconds:
        """Seconds of a prompt with the first one of these documents, the first two, and so on.

        Where tokens see all before them, twice as many may cost four times as much: prompts that are longer
        than the last one are taken to.
        """
        rate, tokens = self.prompt[mode], rest + np.cumsum(documents)
        seconds: Seconds = tokens * rate.seconds
        return seconds * np.maximum(1.0, tokens / max(rate.size, 1.0)) if mode == "dense" else seconds

    def forget(self) -> None:
        """Begin anew."""
        for rate in (self.document, self.question, self.asked, *self.prompt.values()):
            rate.forget()

    def measure(self, items: Sequence[Item], seconds: float) -> None:
        """Take in a forward of items of one kind; it says little if documents were dropped on the way."""
        if any(map(_drops, items)):
            return
        tokens = sum(map(len, items))
        match items[0]:
            case DocumentItem():
                self.document.measure(tokens, seconds)
            case AloneItem():
                self.question.measure(tokens, seconds)
            case AskItem():
                over = sum(sum(item.documents.lengths) for item in items if isinstance(item, AskItem))
                self.asked.measure(over, max(0.0, seconds - tokens * self.question.seconds))
            case PromptItem(prompt):
                self.prompt[prompt.mode].measure(tokens, seconds)


def _drops(item: Item) -> bool:
    """Whether weak documents leave before the end, so that the others pass for less."""
    match item:
        case AskItem(question):
            return question.drop is not None
        case PromptItem(prompt):
            return prompt.question.drop is not None
    return False
