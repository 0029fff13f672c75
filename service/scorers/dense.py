"""The cosine of a question's vector and each text's."""

from collections.abc import Sequence

import numpy as np

from service.embedding import encode_both
from service.nets import Running
from service.scorers.base import Scored
from service.workers import Workers


class DenseScorer:
    """See `Scorer`."""

    def __init__(self, running: Running, workers: Workers) -> None:
        self._running = running
        self._workers = workers

    async def score(self, query: str, documents: Sequence[str], until: float, *, whole: bool) -> Scored:
        """Cosines, from -1 to 1."""
        asked, found = await encode_both(self._running, self._workers, query, documents, until, whole=whole)
        cosines = (found.rows @ asked.rows[0]).astype(np.float32)
        return Scored("cosine", cosines, asked.tokens + found.tokens)
