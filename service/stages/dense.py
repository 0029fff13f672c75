"""Exact retrieval by the cosine of question and passage vectors.

Every allowed passage is scored, so nothing is missed and a filter costs nothing in quality. The scan runs
in one worker thread, in blocks short enough to notice a deadline; a score does not depend on where a block
ends, nor on whether a passage is found or looked up.
"""

import asyncio
from contextlib import suppress
from typing import Annotated, ClassVar, Literal

import numpy as np
from pydantic import Field

from indexer.segment.manifest import Component
from service.errors import EncoderError
from service.limits import Limit
from service.stages.lookup import BLOCK_ROWS, scored
from service.stages.retrieved import retrieved
from service.types import Hits, QuestionTokens, Scores, Search, Seqs, Stage


class Dense(Stage):
    """Find passages by meaning."""

    starts: ClassVar[bool] = True
    needs: ClassVar[Component | None] = "dense"
    floor: ClassVar[float | None] = -1.0
    scores_any: ClassVar[bool] = True

    stage: Literal["dense"] = "dense"
    k: Annotated[int, Field(ge=1), Limit("candidates")] = Field(1000, description="Hits found.")

    async def __call__(self, search: Search, hits: Hits) -> Hits:
        """Encode the question, then scan."""
        if not search.snapshot.parts:
            return retrieved(self.stage, [], self.k)
        vector = await question_vector(search)
        return await search.in_thread(scan, search, vector, self.k, self.stage)

    async def score(self, search: Search, seqs: Seqs) -> Scores:
        """float32 [seqs]: the cosine of the question and each of these passages."""
        if not len(seqs):
            return np.empty(0, np.float32)
        vector = await question_vector(search)
        return await search.in_thread(
            scored, search, seqs, lambda part, rows: part.dense.scores(vector, rows)
        )


async def question_vector(search: Search) -> Scores:
    """The question's vector, float32 [dim] of unit length: encoded once a search."""
    async with search.in_time():
        return await asyncio.shield(foresee_vector(search))


def foresee_vector(search: Search) -> asyncio.Task[Scores]:
    """Have the question encoded."""
    return search.foresee("dense", lambda: _vector(search))


async def _vector(search: Search) -> Scores:
    manifest = search.snapshot.manifest
    encoder, fingerprint = manifest.schema_.encoder, manifest.fingerprints.get("dense")
    # A pipeline that wants the tokens too has said so by now: stages begin before any task of theirs runs.
    if "late" in search.ahead:
        with suppress(EncoderError):  # late interaction will say it; a dense encoder needs no tokens
            late = manifest.schema_.late_encoder, manifest.fingerprints.get("late")
            if await search.nets.pooled(*late) == fingerprint:
                tokens = await asyncio.shield(foresee_tokens(search))
                if tokens.sentence is not None:
                    return tokens.sentence
    return await search.nets.query_vector(encoder, fingerprint, search.query)


def foresee_tokens(search: Search) -> asyncio.Task[QuestionTokens]:
    """Have the question's tokens encoded; a dense encoder makes its vector of the question on the way."""
    manifest = search.snapshot.manifest
    encoder, fingerprint = manifest.schema_.late_encoder, manifest.fingerprints.get("late")
    return search.foresee("late", lambda: search.nets.query_tokens(encoder, fingerprint, search.query))


def scan(search: Search, vector: Scores, k: int, name: str) -> Hits:
    """The k passages of the largest products with `vector`, raw scores by `name`; for a worker thread."""
    found = []
    for part, allowed in zip(search.snapshot.parts, search.allowed, strict=True):
        for begin in range(0, part.segment.rows, BLOCK_ROWS):
            search.check_time()
            rows, scores = part.dense.search(vector, k, allowed, begin, begin + BLOCK_ROWS)
            found.append((part.segment.store.seqs[rows], scores))
    return retrieved(name, found, k)
