"""What a language model that reads texts in context attends to: a question's attention to each of them.

Of the four modes `keys` and `cached` read texts without the question, and keep what they made of them, so
that texts that come again cost less.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, cast

from service.errors import TooLongError
from service.nets import Running
from service.scorers.base import Scored
from service.types import Scores
from service.workers import Workers

if TYPE_CHECKING:  # it brings torch
    from models.in_context.items import Cut, Mode, Question
    from service.in_context import Reranker


class InContextScorer:
    """See `Scorer`. Texts are scored beside one another, and in mode `dense` their order matters too."""

    def __init__(self, running: Running, workers: Workers, mode: "Mode") -> None:
        self._reranker = cast("Reranker", running.net)
        self._workers = workers
        self._mode = mode

    async def score(self, query: str, documents: Sequence[str], until: float, *, whole: bool) -> Scored:
        """Shares of attention. TooLongError also for texts that mode `dense` has no room for together.

        What was read before counts as read; the instruction, which is the service's own, does not.
        """
        tokens, texts = await self._workers.run(self._tokens, query, documents, whole)
        return Scored("attention", await self._attention(query, texts, until), tokens)

    async def _attention(self, query: str, texts: Sequence[list[int]], until: float) -> Scores:
        """What each text has; DeadlineError where there is no time for all."""
        net, least = self._reranker, len(texts)
        match self._mode:
            case "keys":
                return await net.meet(query, texts, until, least)
            case "cached":
                return (await net.ask(query, texts, None, until, least)).scores
            case mode:
                return (await net.rank(query, mode, texts, None, until, least)).scores

    def _tokens(self, query: str, documents: Sequence[str], whole: bool) -> tuple[int, list[list[int]]]:
        """How many tokens the question and the texts have, and those of the texts."""
        question = self._reranker.question(query, self._mode)
        cuts = self._reranker.tokens([("", text) for text in documents])
        if whole:
            _refuse_cut(question, cuts)
        texts = [cut.ids for cut in cuts]
        if self._mode == "dense":
            self._refuse_crowd(query, texts)
        return len(question) + sum(map(len, texts)), texts

    def _refuse_crowd(self, query: str, texts: Sequence[list[int]]) -> None:
        room = self._reranker.room(query, texts)
        if room < len(texts):
            raise TooLongError(
                "text",
                None,
                f"are read as one of at most {self._reranker.net.max_tokens} tokens, and {room} of "
                f"{len(texts)} have room there: send fewer or shorter ones",
            )


def _refuse_cut(question: "Question", cuts: "Sequence[Cut]") -> None:
    if question.lost:
        raise TooLongError("question", None, _more(question.lost))
    for number, cut in enumerate(cuts):
        if cut.lost:
            raise TooLongError("text", number, _more(cut.lost))


def _more(lost: int) -> str:
    return f"has {lost} tokens more than the model reads: shorten it, or ask for it to be cut"
