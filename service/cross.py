"""A cross-encoder behind its batcher: how well documents answer a question, as many as there is time for.

A forward cannot be stopped, so how many documents are read is chosen beforehand, by what tokens have cost
lately and what waits already. Documents go to the batcher many at a time, so that the windows of all of them,
and of what others ask, share forwards. A request whose time is short makes several such calls and chooses
anew after each: a wrong estimate costs the documents of one call, and not those that were scored.
"""

import math
import time
from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np

from models import Kind
from models.cross_passages import Ints, Item, Reading, Scores
from models.roles import Loaded
from service.batcher import Batcher
from service.errors import BusyError, DeadlineError
from service.net_errors import as_stage_errors
from service.workers import Workers

MARGIN = 1.25
"""How much longer than estimated everything may take and still end in time."""

LOOKS = 4
"""How often at least a request that reads until its time is up chooses anew how many documents it reads."""

BLOCK, CHARACTERS = 64, 100_000
"""Documents that are cut into windows at a time, and about how many characters they have together: it takes a
few milliseconds for 10,000, a tenth of a second where a trained student chooses the windows.
"""

CALL = 4
"""A call may have such a part of the tokens that may wait for the net: there is to be room for others."""


class CrossEncoder(Loaded, Protocol):
    """What the service asks of `models.cross.CrossEncoder`."""

    name: str
    max_tokens: int

    def tokenize(self, pairs: Sequence[tuple[str, str]]) -> list[Item]:
        """The item of each pair; never empty."""
        ...

    def forward(self, items: Sequence[Item]) -> Scores:
        """A logit for each item, in order."""
        ...

    def activate(self, logits: Scores) -> Scores:
        """What the model's own activation makes of logits."""
        ...

    def offsets(self, texts: Sequence[str]) -> list[Ints]:
        """Character (start, end) of every word piece of each whole text."""
        ...

    def read(self, query: str, documents: Sequence[tuple[str, str]]) -> list[Reading]:
        """What to read of each title and text; for worker threads."""
        ...

    def score(self, readings: Sequence[Reading], logits: Scores) -> Scores:
        """The scores of documents from the logits of all their items."""
        ...


class CrossNet:
    """A cross-encoder as a batcher wants it; its inputs are pairs."""

    def __init__(self, net: CrossEncoder) -> None:
        self.forward = net.forward
        self._net = net

    def tokenize(self, inputs: Sequence[tuple[str, str]], kind: Kind) -> list[Item]:
        """The item of each pair, of whatever kind."""
        return self._net.tokenize(inputs)


class Windows(NamedTuple):
    """What was read of a document: `characters` int64 [windows, 2] of its text, and the logit of each."""

    characters: Ints
    logits: Scores


class CrossScores(NamedTuple):
    """Of the first m documents the score of each, float32 [m], and what was read of each.

    A score is a logit, or what the recipe makes of several. `cut`: how many documents were not read whole;
    `tokens`: how many passed through the net; `full`: what was said where the net had no room for the others.
    """

    scores: Scores
    windows: list[Windows]
    cut: int
    tokens: int
    full: BusyError | None = None


class CrossReranker:
    """A cross-encoder, for stages and endpoints. What goes wrong with it is raised as a StageError."""

    def __init__(self, net: CrossEncoder, batcher: Batcher, workers: Workers, queued_tokens: int) -> None:
        self.net, self.batcher = net, batcher
        self.fingerprint = net.fingerprint
        self._workers = workers
        self._room = queued_tokens // CALL

    def offsets(self, texts: Sequence[str]) -> list[Ints]:
        """Character (start, end) of every word piece of each whole text: int64 [pieces, 2]."""
        return self.net.offsets(texts)

    def activate(self, scores: Scores) -> Scores:
        """Scores as the model's own activation has them, between 0 and 1 if that is a sigmoid."""
        return self.net.activate(scores)

    async def score(
        self, query: str, documents: Sequence[tuple[str, str]], until: float = math.inf
    ) -> CrossScores:
        """The scores of the first documents, titles and texts, as many as there is time and room for.

        A title may be "". DeadlineError if there is no time for one, BusyError if there is no room.
        """
        full = None
        done: list[CrossScores] = []
        waiting: list[Reading] = []
        begin = 0
        while waiting or begin < len(documents):
            if not waiting:
                block = _block(documents[begin : begin + BLOCK])
                waiting = await self._workers.run(self.net.read, query, block)
                begin += len(block)
            fitting = self._fitting(waiting, until)
            number = min(fitting, self._soon(waiting, until))
            if not number:
                break
            try:
                done.append(await self._some(waiting[:number], until))
            except (BusyError, DeadlineError) as error:
                if not done:
                    raise
                full = error if isinstance(error, BusyError) else None
                break
            if number == fitting < len(waiting):
                break
            waiting = waiting[number:]
        if documents and not done:
            raise DeadlineError(f"there was no time for one of {len(documents)} candidates")
        return _together(done)._replace(full=full)

    async def _some(self, readings: Sequence[Reading], until: float) -> CrossScores:
        """The scores of these, at least one, all in one call."""
        items = [item for reading in readings for item in reading.items]
        with as_stage_errors(self.net.name):
            logits = await self.batcher.submit(items, deadline=until)
        ends = np.cumsum([len(reading.items) for reading in readings])
        parts = np.split(logits, ends[:-1])
        return CrossScores(
            self.net.score(readings, logits),
            [Windows(each.characters, part) for each, part in zip(readings, parts, strict=True)],
            sum(not reading.whole for reading in readings),
            sum(map(len, readings)),
        )

    def _fitting(self, readings: Sequence[Reading], until: float) -> int:
        """How many of the first of these there is time for."""
        left, tokens = until - time.monotonic(), _sums(readings)
        return sum(MARGIN * self.batcher.seconds(each) <= left for each in tokens)

    def _soon(self, readings: Sequence[Reading], until: float) -> int:
        """How many of the first of these make one call; at least one."""
        left, waits = (until - time.monotonic()) / LOOKS, self.batcher.seconds(0)
        return max(
            1,
            sum(
                each <= self._room and self.batcher.seconds(each) - waits <= left for each in _sums(readings)
            ),
        )


def _block(documents: Sequence[tuple[str, str]]) -> Sequence[tuple[str, str]]:
    """The first of these, at least one, that are cut together."""
    ends = np.cumsum([len(text) for _, text in documents])
    return documents[: max(1, int(np.searchsorted(ends, CHARACTERS, side="right")))]


def _sums(readings: Sequence[Reading]) -> list[int]:
    """Tokens of the first of these, the first two, and so on."""
    sums: list[int] = np.cumsum([len(each) for each in readings]).tolist()
    return sums


def _together(parts: Sequence[CrossScores]) -> CrossScores:
    return CrossScores(
        np.concatenate([np.empty(0, np.float32), *(each.scores for each in parts)]),
        [windows for each in parts for windows in each.windows],
        sum(each.cut for each in parts),
        sum(each.tokens for each in parts),
    )
