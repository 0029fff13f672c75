"""Reranking in context: a language model reads the candidates, and its attention says which are relevant.

Four modes, from the cheapest (formulas and what may be kept are in `models.in_context`): `keys` asks alone
and then meets the keys of one layer that are stored of every passage; `cached` asks over what an
instruction without the question and each passage made of it, which is kept of passages that were read
lately; `query_aware` reads all candidates anew after an instruction that has the question; `dense` reads
them as one text, each after those before it. A hit is scored by its own passage.

How many candidates are scored is decided by what time there is (`service.in_context`); what is not scored
keeps its order, behind what was. Scores are shares of attention, comparable only within one answer, so they
are mixed with the scores before and rarely of use alone.
"""

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal, Self

import numpy as np
from pydantic import Field, model_validator

from indexer.segment.keys import KeyRows, combine, key_rows
from indexer.segment.manifest import Component
from service.errors import DeadlineError
from service.limits import Limit
from service.stages.lookup import by_part, text_of, texts
from service.stages.rescored import joined
from service.types import Attended, Hits, Scores, Search, Seqs, Stage

if TYPE_CHECKING:  # torch comes with the net and not before
    from models.in_context.items import Cut, KeyQuestion
    from models.in_context.read_out import Drop
    from service.in_context import Reranker

BLOCK = 128
"""Candidates between two looks at the clock, of those whose keys are stored: a few milliseconds of work."""

SHOWN = 10
"""Tokens that an explanation names."""


class InContext(Stage):
    """Rescore the best hits by a language model that reads them."""

    starts: ClassVar[bool] = False

    stage: Literal["in_context"] = "in_context"
    mode: Literal["dense", "query_aware", "cached", "keys"] = Field(
        "cached",
        description="`keys`: by the component of this name, no passage is read. `cached`: passages are read "
        "without the question, and kept. `query_aware`: they are read anew with it. `dense`: as one text.",
    )
    k: Annotated[int, Field(ge=1), Limit("rerank")] = Field(
        100, description="Hits rescored; the others keep their order behind them."
    )
    weight: float = Field(
        0.2,
        gt=0,
        le=1,
        description="Share of the new score; the rest is the score before, both min-max normalised over the "
        "hits rescored. At 1 a score is the attention itself.",
    )
    drop_layer: int | None = Field(
        None, ge=0, le=1000, description="Layer at which the weakest candidates are left out, to save time."
    )
    drop_keep: float = Field(
        0.5, gt=0, le=1, description="Share of the candidates that stay at `drop_layer`."
    )

    @model_validator(mode="after")
    def _drop_where_it_can_be(self) -> Self:
        if self.drop_layer is not None and self.mode not in ("cached", "query_aware"):
            raise ValueError(f"candidates are dropped in modes cached and query_aware, not in {self.mode}")
        return self

    @property
    def needs(self) -> Component | None:
        """Mode `keys` reads what is stored; the others read texts."""
        return "keys" if self.mode == "keys" else None

    @property
    def label(self) -> str:
        """Each mode has scores and explanations of its own."""
        return f"{self.stage}_{self.mode}"

    def begin(self, search: Search) -> None:
        """Have the net loaded, and for `keys` the question asked, while others find the hits."""
        if not search.snapshot.parts:
            return
        if self.mode == "keys":
            _foresee_question(search)
        else:
            _foresee_net(search)

    async def __call__(self, search: Search, hits: Hits) -> Hits:
        """Score the best hits, as many as there is time for."""
        if not len(hits):
            return hits
        seqs = hits.seqs[: self.k]
        async with search.in_time():
            scores = await (self._by_keys if self.mode == "keys" else self._by_reading)(search, seqs)
        number = len(scores)
        search.notes.counts["scored"] = number
        if number < len(seqs):
            room = " and room" if self.mode == "dense" else ""
            search.notes.reasons.append(f"there was time{room} for {number} of {len(seqs)} candidates")
        return joined(hits, seqs[:number], scores, self.weight, self.label)

    def explain(self, search: Search, seqs: Seqs) -> list[list[Attended]]:
        """Of each passage the tokens that carried the attention, most first; none where it was not scored."""
        attention: Attention | None = search.questions.get(self.label)
        if attention is None:
            return [[] for _ in seqs]
        return [attention.of(search, seq) for seq in seqs.tolist()]

    async def _by_keys(self, search: Search, seqs: Seqs) -> Scores:
        net, asked = await asyncio.shield(_foresee_question(search))
        rows = key_rows(asked.vectors, asked.kv_heads, asked.weights)
        search.questions[self.label] = ByKeys(net, rows)
        return await search.in_thread(self._with_keys, search, net, seqs, rows)

    def _with_keys(self, search: Search, net: "Reranker", seqs: Seqs, asked: KeyRows) -> Scores:
        """Scores of the first of these passages, as many as there is time for; for a worker thread."""
        self._note_lost(search, net)
        peaks = np.empty((len(seqs), len(asked.weights)), np.float32)
        sums = np.empty_like(peaks)
        done, slowest = 0, 0.0
        while done < len(seqs):
            began = time.monotonic()
            if began + slowest > search.deadline:
                if not done:
                    raise DeadlineError("the time for this stage was up before it had begun")
                break
            block = slice(done, done + BLOCK)
            _fill(search, seqs[block], asked, peaks[block], sums[block])
            slowest = max(slowest, time.monotonic() - began)
            done = min(done + BLOCK, len(seqs))
        return combine(peaks[:done], sums[:done], asked.weights)

    async def _by_reading(self, search: Search, seqs: Seqs) -> Scores:
        net = await asyncio.shield(_foresee_net(search))
        cuts = await search.in_thread(self._cut, search, net, seqs)
        documents, drop = [cut.ids for cut in cuts], self._drop()
        if self.mode == "cached":
            read = await net.ask(search.query, documents, drop, search.deadline)
        else:
            read = await net.rank(search.query, self.mode, documents, drop, search.deadline)
        search.notes.counts["cut"] = sum(cut.lost > 0 for cut in cuts[: len(read.scores)])
        by_seq = zip(
            seqs.tolist(), zip(documents, read.tokens, strict=False), strict=False
        )  # as far as it came
        search.questions[self.label] = ByReading(net, dict(by_seq))
        return read.scores

    def _cut(self, search: Search, net: "Reranker", seqs: Seqs) -> "list[Cut]":
        self._note_lost(search, net)
        return net.tokens(texts(search, seqs))

    def _note_lost(self, search: Search, net: "Reranker") -> None:
        lost = net.lost(search.query, self.mode)
        if lost:
            search.notes.reasons.append(f"tokens of the question that were not read: {lost}")

    def _drop(self) -> "Drop | None":
        from models.in_context.read_out import Drop

        return None if self.drop_layer is None else Drop(self.drop_layer, self.drop_keep)


@dataclass(frozen=True)
class ByKeys:
    """The attention of a question to stored keys, worked out anew for what is shown."""

    net: "Reranker"
    asked: KeyRows

    def of(self, search: Search, seq: int) -> list[Attended]:
        """Which tokens of a passage had the attention that went to it."""
        from models.maxsim import products

        (number,), (row,) = search.snapshot.locate(np.array([seq]))
        part = search.snapshot.parts[number]
        attention = part.keys.attention(self.asked, int(row), products)
        (cut,) = self.net.tokens([text_of(part, int(row))])
        return _attended(self.net, cut.ids, attention)


@dataclass(frozen=True)
class ByReading:
    """The attention of a question to passages as they were read: token ids and the attention of each."""

    net: "Reranker"
    tokens: Mapping[int, tuple[list[int], Scores]]

    def of(self, search: Search, seq: int) -> list[Attended]:
        """Which tokens of a passage had the attention that went to it."""
        return _attended(self.net, *self.tokens[seq]) if seq in self.tokens else []


Attention = ByKeys | ByReading


def _attended(net: "Reranker", ids: Sequence[int], attention: Scores) -> list[Attended]:
    """The tokens of most attention, most first, with their shares of all that speaks for the passage."""
    total = float(attention[attention > 0].sum(dtype=np.float64))
    most = [place for place in np.argsort(-attention, kind="stable")[:SHOWN].tolist() if attention[place] > 0]
    pieces = net.pieces([ids[place] for place in most])
    return [
        {"token": piece, "share": float(attention[place]) / total}
        for piece, place in zip(pieces, most, strict=True)
    ]


def _fill(search: Search, seqs: Seqs, asked: KeyRows, peaks: Scores, sums: Scores) -> None:
    """Fill in what the softmax over all candidates needs of these."""
    from models.maxsim import products  # torch, which has been loaded with the net

    for part, places, rows in by_part(search, seqs):
        peaks[places], sums[places] = part.keys.partials(asked, rows, products)


def _foresee_net(search: Search) -> "asyncio.Task[Reranker]":
    """Have the net loaded that reads; which keys the collection has does not matter to it."""
    name = search.snapshot.schema.in_context_model
    return search.foresee("in_context", lambda: search.nets.reranker(name, None))


def _foresee_question(search: Search) -> "asyncio.Task[tuple[Reranker, KeyQuestion]]":
    """Have the question asked of the net that made the stored keys."""
    manifest = search.snapshot.manifest
    name, fingerprint = manifest.schema_.in_context_model, manifest.fingerprints.get("in_context")
    return search.foresee(
        "in_context_keys", lambda: search.nets.key_question(name, fingerprint, search.query)
    )
