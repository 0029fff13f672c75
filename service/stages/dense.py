"""Exact retrieval by the cosine of question and passage vectors.

Every allowed passage is scored, so nothing is missed and a filter costs nothing in quality. The scan runs
in one worker thread, in blocks short enough to notice a deadline; a score does not depend on where a block
ends, nor on whether a passage is found or looked up.
"""

from typing import Annotated, ClassVar, Literal

import numpy as np
from pydantic import Field

from indexer.segment.manifest import Component
from service.limits import Limit
from service.stages.lookup import BLOCK_ROWS, scored
from service.stages.retrieved import retrieved
from service.types import Hits, Scores, Search, Seqs, Stage


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
    """The question's vector, float32 [dim] of unit length: encoded by the first stage of a search to ask."""
    vector: Scores | None = search.questions.get("dense")
    if vector is None:
        manifest = search.snapshot.manifest
        fingerprint = manifest.fingerprints.get("dense")
        async with search.in_time():
            vector = await search.nets.query_vector(manifest.schema_.encoder, fingerprint, search.query)
        search.questions["dense"] = vector
    return vector


def scan(search: Search, vector: Scores, k: int, name: str) -> Hits:
    """The k passages of the largest products with `vector`, raw scores by `name`; for a worker thread."""
    found = []
    for part, allowed in zip(search.snapshot.parts, search.allowed, strict=True):
        for begin in range(0, part.segment.rows, BLOCK_ROWS):
            search.check_time()
            rows, scores = part.dense.search(vector, k, allowed, begin, begin + BLOCK_ROWS)
            found.append((part.segment.store.seqs[rows], scores))
    return retrieved(name, found, k)
