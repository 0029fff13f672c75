"""Cross-encoding: question and text are read together by one net, which says how well they fit.

A hit is scored by its own passage, or by its whole document, of which the net reads a few windows (see
`models.cross`). How many hits are scored is decided by what time there is (`service.cross`); what is not
scored keeps its order, behind what was. The net is the service's, not the collection's: nothing of it is
stored.
"""

import asyncio
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

import numpy as np
from pydantic import Field

from service.limits import Limit
from service.stages.group import Group
from service.stages.lookup import documents, texts
from service.stages.rescored import joined
from service.types import Hits, ReadWindow, Search, Seqs, Stage

if TYPE_CHECKING:
    from service.cross import CrossReranker, Windows


class Cross(Stage):
    """Rescore the best hits by a cross-encoder."""

    starts: ClassVar[bool] = False

    stage: Literal["cross"] = "cross"
    k: Annotated[int, Field(ge=1), Limit("rerank")] = Field(
        50, description="Hits rescored; the others keep their order behind them."
    )
    weight: float = Field(
        1.0,
        gt=0,
        le=1,
        description="Share of the new score; the rest is the score before, both min-max normalised over the "
        "hits rescored. At 1 a score is the net's own, a logit.",
    )
    unit: Literal["passage", "document"] = Field(
        "passage",
        description="What is read: each hit's own passage, or its document, the most promising windows of a "
        "long one. A document is then one hit.",
    )

    def begin(self, search: Search) -> None:
        """Have the net loaded while others find the hits."""
        if search.snapshot.parts:
            _foresee(search)

    async def __call__(self, search: Search, hits: Hits) -> Hits:
        """Score the best hits, as many as there is time for."""
        if not len(hits):
            return hits
        async with search.in_time():
            net = await asyncio.shield(_foresee(search))
        hits, wanted = await search.in_thread(self._wanted, search, hits)
        async with search.in_time():
            found = await net.score(search.query, wanted, search.deadline)
        number = len(found.scores)
        search.notes.counts.update({"scored": number, "cut": found.cut})
        if number < len(wanted):
            what = "time" if found.full is None else "room in the queue"
            search.notes.reasons.append(f"there was {what} for {number} of {len(wanted)} candidates")
        seqs = hits.seqs[:number]
        search.questions[self.label] = dict(zip(seqs.tolist(), found.windows, strict=True))
        return joined(hits, seqs, found.scores, self.weight, self.label)

    def explain(self, search: Search, seqs: Seqs) -> list[list[ReadWindow]]:
        """Of each document the windows that were read, in order; none where it was not scored."""
        read: Mapping[int, Windows] = search.questions.get(self.label, {})
        begins = _begins(search, seqs) if self.unit == "passage" else [0] * len(seqs)
        return [
            _shown(read[seq], begin) if seq in read else []
            for seq, begin in zip(seqs.tolist(), begins, strict=True)
        ]

    def _wanted(self, search: Search, hits: Hits) -> tuple[Hits, list[tuple[str, str]]]:
        """The hits, each document once if documents are read, and titles and texts of the best."""
        if self.unit == "passage":
            return hits, texts(search, hits.seqs[: self.k])
        hits = Group().group(hits, search.snapshot.document_keys(hits.seqs))
        return hits, documents(search, hits.seqs[: self.k])


def _foresee(search: Search) -> "asyncio.Task[CrossReranker]":
    return search.foresee("cross", search.nets.cross)


def _begins(search: Search, seqs: Seqs) -> list[int]:
    """Where each passage begins in its document's text."""
    parts, rows = search.snapshot.locate(np.asarray(seqs))
    stores = [part.segment.store for part in search.snapshot.parts]
    return [int(stores[part].spans[row][0]) for part, row in zip(parts.tolist(), rows.tolist(), strict=True)]


def _shown(windows: "Windows", begin: int) -> list[ReadWindow]:
    spans: Sequence[Sequence[int]] = windows.characters.tolist()
    return [
        {"start": begin + first, "end": begin + last, "score": score}
        for (first, last), score in zip(spans, windows.logits.tolist(), strict=True)
    ]
