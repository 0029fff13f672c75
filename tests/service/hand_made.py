"""Hits and stages made by hand, for tests of what works on hits."""

import asyncio
import time
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, cast

import numpy as np

from service.errors import EncoderError
from service.snapshot import Snapshot
from service.types import Hits, Nets, Search, Stage
from service.workers import Workers


def hits(scores: Mapping[int, float], name: str = "given") -> Hits:
    """Hits from {seq: score}, best first, as a retriever called `name` gives them."""
    values = np.array(list(scores.values()), np.float32)
    return Hits(np.array(list(scores), np.int64), values, {name: values}).best(len(values))


def scores(hits: Hits) -> dict[int, float]:
    """{seq: score} in the order of the hits, rounded so that it can be read."""
    return {seq: round(score, 4) for seq, score in zip(hits.seqs.tolist(), hits.scores.tolist(), strict=True)}


class Given(Stage):
    """Finds what it is told to, after a while, or fails."""

    starts: ClassVar[bool] = True

    stage: str = "given"
    found: Mapping[int, float] = {}
    seconds: float = 0.0
    failure: str | None = None

    async def __call__(self, search: Search, before: Hits) -> Hits:
        async with search.in_time():
            await asyncio.sleep(self.seconds)
        if self.failure is not None:
            raise EncoderError(self.failure)
        return hits(self.found, self.stage)


class Broken(Stage):
    """A later stage that always fails."""

    stage: str = "broken"

    async def __call__(self, search: Search, before: Hits) -> Hits:
        raise EncoderError("no weights")


class Documents:
    """Stands for a snapshot of which only the document of each passage is known."""

    missing: Sequence[str] = ()

    def __init__(self, document_of: Mapping[int, int]) -> None:
        self.document_of = document_of

    def document_keys(self, seqs: Sequence[int]) -> Any:
        return np.array([self.document_of[int(seq)] for seq in seqs], np.int64)


def search(snapshot: Any = None, seconds: float = 10.0) -> Search:
    """A search whose stages need neither an index nor nets."""
    deadline = time.monotonic() + seconds
    snapshot = Documents({}) if snapshot is None else snapshot
    return Search("question", cast(Snapshot, snapshot), (), deadline, cast(Nets, None), cast(Workers, None))
