"""Late interaction: candidates are ordered anew by how well each token of the question is met in a passage.

MaxSim (Khattab and Zaharia, SIGIR 2020): every token vector of the question takes its most similar one of the
passage. The score is the mean of these cosines and not their sum, so that questions of different lengths
compare. Passages' vectors are stored in 8 bits or fewer and their products summed in integers, so a score is
the same however passages lie in segments and whichever others are scored with them.

Candidates are scored in the order they came in, in blocks. Before a block that would not end in time the
stage stops and says so; what was not scored keeps its order, behind what was.
"""

import asyncio
import time
from collections.abc import Iterator
from typing import Annotated, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from indexer.segment.late import LateQuestion, question
from indexer.segment.manifest import Component
from service.errors import DeadlineError
from service.limits import Limit
from service.stages.cutoffs import Patience, worth_scoring
from service.stages.dense import foresee_tokens
from service.stages.fast_forward import aggregated
from service.stages.group import Group
from service.stages.lookup import scored, siblings
from service.stages.rescored import joined
from service.types import Hits, Match, Scores, Search, Seqs, Stage

BLOCK = 128
"""Candidates between two looks at the clock: a millisecond or two of work."""


class Late(Stage):
    """Rescore the best hits by late interaction."""

    starts: ClassVar[bool] = False
    needs: ClassVar[Component | None] = "late"

    stage: Literal["late"] = "late"
    k: Annotated[int, Field(ge=1), Limit("rerank")] = Field(
        100, description="Hits rescored; the others keep their order behind them."
    )
    weight: float = Field(
        1.0,
        gt=0,
        le=1,
        description="Share of late interaction in the score; the rest is the score before, both min-max "
        "normalised over the hits rescored. At 1 a score is the mean cosine itself.",
    )
    aggregate: Literal["passage", "max"] = Field(
        "passage",
        description="What is scored: each hit's own passage, or all passages of its document, of which the "
        "best counts. A document is then one hit, standing on it.",
    )
    final: int = Field(
        10, ge=1, le=1000, description="How many hits `alpha` and `patience` are to get right."
    )
    alpha: float | None = Field(
        None,
        ge=0,
        le=1,
        description="Candidate pruning: only hits of at least (1 - alpha) times the score at rank `final` "
        "are rescored; a larger one keeps more. 0.05 is usual after a strong first stage.",
    )
    patience: int | None = Field(
        None,
        ge=1,
        le=10_000,
        description="Early exit: stop after so many hits in a row that do not enter the best `final`.",
    )

    def begin(self, search: Search) -> None:
        """Have the question encoded while others find the hits."""
        if search.snapshot.parts:
            foresee_tokens(search)

    async def __call__(self, search: Search, hits: Hits) -> Hits:
        """Have the question encoded, then score the candidates in one thread."""
        if not len(hits):
            return hits
        async with search.in_time():
            asked = await asyncio.shield(foresee_tokens(search))
        return await search.in_thread(self._rescore, search, hits, question(asked.vectors))

    def explain(self, search: Search, seqs: Seqs) -> list[list[Match]]:
        """For each token of the question the passage's tokens that met it best, in the question's order."""
        asked: LateQuestion | None = search.questions.get(self.stage)
        if asked is None:
            return [[] for _ in seqs]
        return [_matches(search, asked, seq) for seq in seqs.tolist()]

    def _rescore(self, search: Search, hits: Hits, asked: LateQuestion) -> Hits:
        search.questions[self.stage] = asked
        if self.aggregate != "passage":
            hits = Group().group(hits, search.snapshot.document_keys(hits.seqs))
        wanted = min(self.k, len(hits))
        if self.alpha is not None:
            wanted = worth_scoring(hits.scores[:wanted], self.final, self.alpha)
        seqs, scores = self._scores(search, hits.seqs[:wanted], asked)
        search.notes.counts["scored"] = len(scores)
        return joined(hits, seqs, scores, self.weight, self.stage)

    def _scores(self, search: Search, seqs: Seqs, asked: LateQuestion) -> tuple[Seqs, Scores]:
        """Where the first of these candidates stand, and their scores: all unless patience or time ends."""
        patience = Patience(self.final, self.patience)
        stand, found = [np.empty(0, np.int64)], [np.empty(0, np.float32)]
        done, slowest = 0, 0.0
        for begin, block in self._blocks(len(seqs)):
            began = time.monotonic()
            if began + slowest > search.deadline:
                if not done:
                    raise DeadlineError("the time for this stage was up before it had begun")
                search.notes.reasons.append(f"there was time for {done} of {len(seqs)} candidates")
                break
            passages, scores = self._block(search, seqs[begin : begin + block], asked)
            slowest = max(slowest, time.monotonic() - began)
            end = patience.outlasts(scores.tolist())
            stand.append(passages[:end])
            found.append(scores[:end])
            done += len(found[-1])
            if end is not None:
                break
        return np.concatenate(stand), np.concatenate(found)

    def _block(self, search: Search, seqs: Seqs, asked: LateQuestion) -> tuple[Seqs, Scores]:
        if self.aggregate == "passage":
            return seqs, maxsim(search, asked, seqs)
        passages, owners = siblings(search, seqs)
        best, scores = aggregated(maxsim(search, asked, passages), owners, self.aggregate, 1)
        return passages[best], scores

    def _blocks(self, wanted: int) -> Iterator[tuple[int, int]]:
        """Where blocks begin and how long they are: short ones where patience may end any time."""
        size = BLOCK if self.patience is None else min(BLOCK, max(self.final, 2 * self.patience))
        return ((begin, size) for begin in range(0, wanted, size))


def maxsim(search: Search, asked: LateQuestion, seqs: Seqs) -> Scores:
    """The mean over the question's tokens of the largest cosine to a token of each passage: [seqs]."""
    from models.maxsim import products  # torch, which has been loaded with the encoder

    return scored(search, seqs, lambda part, rows: part.late.scores(asked, rows, products))


def _matches(search: Search, asked: LateQuestion, seq: int) -> list[Match]:
    from models.maxsim import products

    encoder = search.snapshot.schema.late_encoder
    (part,), (row,) = search.snapshot.locate(np.array([seq]))
    late = search.snapshot.parts[part].late
    best, cosines = late.matches(asked, int(row), products)
    asked_tokens = search.nets.question_tokens(encoder, search.query)
    tokens = search.nets.token_words(encoder, late.pieces(int(row)))
    owners = late.labels(int(row))
    return [
        {
            "query_token": token,
            "passage_tokens": _members(tokens, owners, vector),
            "similarity": cosine,
        }
        for token, vector, cosine in zip(asked_tokens, best.tolist(), cosines.tolist(), strict=True)
    ]


def _members(tokens: list[str], owners: NDArray[np.integer], vector: int) -> list[str]:
    """The tokens that a vector stands for, in order."""
    return [token for token, owner in zip(tokens, owners.tolist(), strict=True) if owner == vector]
