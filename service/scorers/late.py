"""Late interaction with texts that were not indexed: the mean over the question's tokens of the best cosine.

As in stage `late`, only that nothing is rounded to 8 bits. A text's token vectors are compared where they are
made and not kept: those of a thousand texts would take hundreds of megabytes.
"""

from collections.abc import Sequence
from typing import cast

import numpy as np

from service.embedding import Reader, encode, fewest_of_cut, priority, refuse_cut
from service.late_net import MaxSimItem
from service.net_errors import as_stage_errors
from service.nets import Running
from service.scorers.base import Scored
from service.together import together
from service.types import QuestionTokens
from service.workers import Workers


class LateScorer:
    """See `Scorer`."""

    def __init__(self, running: Running, workers: Workers) -> None:
        self._running = running
        self._workers = workers

    async def score(self, query: str, documents: Sequence[str], until: float, *, whole: bool) -> Scored:
        """Means of cosines, from -1 to 1."""
        async with together() as group:
            asking = group.create_task(
                encode(self._running, self._workers, [query], "query", until, whole=whole)
            )
            reading = group.create_task(self._workers.run(self._tokens, documents, whole))
        asked, tokens = asking.result(), reading.result()
        question: QuestionTokens = asked.rows[0]
        with as_stage_errors(self._running.batcher.name):
            items = [MaxSimItem(each, question.vectors) for each in tokens]
            scores = await self._running.batcher.submit(items, priority=priority(items), deadline=until)
        return Scored("cosine", scores.astype(np.float32), asked.tokens + sum(map(len, tokens)))

    def _tokens(self, documents: Sequence[str], whole: bool) -> list[list[int]]:
        reader = cast(Reader, self._running.net)
        tokens = cast(list[list[int]], reader.tokenize(documents, "document"))
        if whole and max(map(len, tokens)) >= fewest_of_cut(reader, "document"):
            refuse_cut(reader, documents, "document")
        return tokens
