"""The logit of a question and each text, which pass through a cross-encoder together."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, cast

from service.errors import DeadlineError, TooLongError
from service.nets import Running
from service.scorers.base import Scored
from service.workers import Workers

if TYPE_CHECKING:  # it brings torch
    from service.cross import CrossReranker


class CrossScorer:
    """See `Scorer`. What is longer than the net reads is scored by some of its windows."""

    def __init__(self, running: Running, workers: Workers) -> None:
        self._reranker = cast("CrossReranker", running.net)
        self._workers = workers

    async def score(self, query: str, documents: Sequence[str], until: float, *, whole: bool) -> Scored:
        """Logits, or of a text of several windows what the recipe makes of theirs."""
        pairs = [("", text) for text in documents]
        if whole:
            await self._workers.run(self._refuse_cut, query, pairs)
        found = await self._reranker.score(query, pairs, until)
        if found.full is not None:
            raise found.full
        if (number := len(found.scores)) < len(pairs):
            raise DeadlineError(f"there was time for {number} of {len(pairs)} texts")
        return Scored("logit", found.scores, found.tokens)

    def _refuse_cut(self, query: str, pairs: Sequence[tuple[str, str]]) -> None:
        net = self._reranker.net
        for number, reading in enumerate(net.read(query, pairs)):
            if not reading.whole:
                raise TooLongError(
                    "text",
                    number,
                    f"and the question are longer than the model reads, which is {net.max_tokens} tokens at "
                    "a time: shorten them, or ask for them to be cut",
                )
