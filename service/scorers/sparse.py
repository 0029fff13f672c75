"""The dot product of a question's and each text's weights of vocabulary entries, both by the encoder."""

from collections.abc import Sequence
from typing import cast

import numpy as np

from models.csr import Csr, concatenate
from service.embedding import encode_both
from service.nets import Running
from service.scorers.base import Scored
from service.sparse_net import SparseEncoder
from service.types import Scores
from service.workers import Workers


class SparseScorer:
    """See `Scorer`."""

    def __init__(self, running: Running, workers: Workers) -> None:
        self._running = running
        self._workers = workers

    async def score(self, query: str, documents: Sequence[str], until: float, *, whole: bool) -> Scored:
        """Products, 0 where no entry is shared."""
        asked, found = await encode_both(self._running, self._workers, query, documents, until, whole=whole)
        scores = await self._workers.run(self._products, list(asked.rows), list(found.rows))
        return Scored("product", scores, asked.tokens + found.tokens)

    def _products(self, asked: Sequence[Csr], found: Sequence[Csr]) -> Scores:
        encoder = cast(SparseEncoder, self._running.net)
        question = encoder.finish(concatenate(asked), "query")
        return products(question, encoder.finish(concatenate(found), "document"), encoder.vocabulary)


def products(question: Csr, texts: Csr, vocabulary: int) -> Scores:
    """Dot products of the first row of `question` with each row of `texts`: float32 [texts]."""
    terms, weights = question.row(0)
    asked = np.zeros(vocabulary, np.float32)
    asked[terms] = weights
    rows = np.repeat(np.arange(len(texts)), np.diff(texts.offsets))
    shared = texts.weights.astype(np.float64) * asked[texts.terms]
    return np.bincount(rows, shared, minlength=len(texts)).astype(np.float32)
