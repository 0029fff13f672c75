"""Exact retrieval by the cosine of question and passage vectors.

Every allowed passage is scored, so nothing is missed and a filter costs nothing in quality. The scan runs
in one worker thread, in blocks short enough to notice a deadline; a score does not depend on where a block
ends.
"""

from typing import Annotated, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from indexer.segment.manifest import Component
from service.limits import Limit
from service.stages.retrieved import retrieved
from service.types import Hits, Search, Stage

BLOCK_ROWS = 32_768


class Dense(Stage):
    """Find passages by meaning."""

    starts: ClassVar[bool] = True
    needs: ClassVar[Component | None] = "dense"

    stage: Literal["dense"] = "dense"
    k: Annotated[int, Field(ge=1), Limit("candidates")] = Field(1000, description="Hits found.")

    async def __call__(self, search: Search, hits: Hits) -> Hits:
        """Encode the question, then scan."""
        if not search.snapshot.parts:
            return retrieved(self.stage, [], self.k)
        manifest = search.snapshot.manifest
        fingerprint = manifest.fingerprints.get("dense")
        async with search.in_time():
            vector = await search.nets.query_vector(manifest.schema_.encoder, fingerprint, search.query)
        return await search.in_thread(self._scan, search, vector)

    def _scan(self, search: Search, query: NDArray[np.float32]) -> Hits:
        found = []
        for part, allowed in zip(search.snapshot.parts, search.allowed, strict=True):
            for begin in range(0, part.segment.rows, BLOCK_ROWS):
                search.check_time()
                rows, scores = part.dense.search(query, self.k, allowed, begin, begin + BLOCK_ROWS)
                found.append((part.segment.store.seqs[rows], scores))
        return retrieved(self.stage, found, self.k)
