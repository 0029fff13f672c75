"""Two cheap cut-offs of reranking that rely on a strong first stage: how many of its hits are worth a score.

Martinico, Nardini, Rulli and Venturini, "Multivector Reranking in the Era of Strong First-Stage Retrievers",
ECIR 2026 (arXiv 2601.05200). Pure functions over scores in the first stage's order.
"""

import heapq
from collections.abc import Iterable

from service.types import Scores


def worth_scoring(scores: Scores, final: int, alpha: float) -> int:
    """Candidate pruning: how many of `scores`, best first, have at least (1 - alpha) of that of rank `final`.

    A larger alpha keeps more; ties at the threshold are kept. With a negative score at that rank the margin
    is alpha times its size below it, since a share of it would lie above. Fewer than `final` are all kept.
    """
    if len(scores) <= final:
        return len(scores)
    last = float(scores[final - 1])
    return int((scores >= last - alpha * abs(last)).sum())


class Patience:
    """Early exit: after the first `final` candidates, so many in a row that do not improve the best `final`.

    `None` never loses patience. Feed it scores in the first stage's order.
    """

    def __init__(self, final: int, most: int | None) -> None:
        self._final = final
        self._most = most
        self._best: list[float] = []
        self._stalls = 0

    def outlasts(self, scores: Iterable[float]) -> int | None:
        """How many of these are looked at until patience ends, the last included; None if it does not."""
        for looked, score in enumerate(scores, start=1):
            if len(self._best) < self._final:
                heapq.heappush(self._best, score)
            elif score > self._best[0]:
                heapq.heapreplace(self._best, score)
                self._stalls = 0
            else:
                self._stalls += 1
                if self._stalls == self._most:
                    return looked
        return None
