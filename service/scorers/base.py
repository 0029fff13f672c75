"""What every scorer gives, and what its scores are on a scale from 0 to 1."""

from collections.abc import Sequence
from typing import Literal, NamedTuple, Protocol

import numpy as np

from service.stages.normalise import minmax
from service.types import Scores

Scale = Literal["logit", "cosine", "product", "attention"]
"""What a raw score is: any number, of a classifier; from -1 to 1; 0 or more; a share of attention, which
compares within one answer only.
"""


class Scored(NamedTuple):
    """The raw score of each text, float32 [n], in order, and the tokens that the net read for them."""

    scale: Scale
    scores: Scores
    tokens: int

    def unit(self) -> Scores:
        """The same from 0 to 1, in the same order: float32 [n].

        A logit's sigmoid is taken whatever the net's own activation is. Of shares of attention the largest
        is 1, so that whoever drops what is below a threshold keeps it, and the smallest 0, if it is smaller.
        """
        match self.scale:
            case "logit":
                return (1 / (1 + np.exp(-self.scores.astype(np.float64)))).astype(np.float32)
            case "cosine":
                return np.clip((1 + self.scores) / 2, 0, 1).astype(np.float32)
            case "product":
                return (self.scores / (1 + self.scores)).astype(np.float32)
            case "attention":
                low, high = self.scores.min(initial=np.inf), self.scores.max(initial=-np.inf)
                return (minmax(self.scores) if low < high else np.ones(len(self.scores))).astype(np.float32)


class Scorer(Protocol):
    """A net that says how well texts answer a question."""

    async def score(self, query: str, documents: Sequence[str], until: float, *, whole: bool) -> Scored:
        """Score every text, until a time of the monotonic clock.

        With `whole` a text that the net would cut is refused: TooLongError. StageErrors, DeadlineError among
        them.
        """
        ...
