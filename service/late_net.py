"""A late-interaction encoder as a batcher wants it: texts to token vectors, or to scores for a question."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from models import Kind
from models.roles import Loaded
from service.batch_queue import Array
from service.types import QuestionTokens, Scores


class LateEncoder(Loaded, Protocol):
    """What the service asks of `models.late.LateEncoder`."""

    max_tokens: int

    @property
    def pooled(self) -> str | None:
        """Fingerprint of the dense encoder whose vectors of texts can be had too, if any can."""
        ...

    def tokenize(self, texts: Sequence[str], kind: Kind) -> list[list[int]]:
        """Token ids of each text; never an empty list."""
        ...

    def vectors(
        self, tokens: Sequence[Sequence[int]], sentences: bool
    ) -> Sequence[tuple[NDArray[np.float32], NDArray[np.float32] | None]]:
        """Of each text, in order, vectors of its tokens and, if asked, one of all."""
        ...

    def pieces(self, texts: Sequence[str], kind: Kind) -> Sequence[tuple[NDArray[np.int32], Any]]:
        """Of each text the vocabulary entry that each of its vectors stands for, first."""
        ...

    def words(self, ids: NDArray[np.int32]) -> list[str]:
        """Vocabulary entries as a reader knows them."""
        ...


@dataclass(frozen=True, eq=False)
class MaxSimItem:
    """A text, and the token vectors of a question that its own are compared with: float32 [q, dim]."""

    tokens: Sequence[int]
    asked: Scores

    def __len__(self) -> int:
        return len(self.tokens)


class LateNet:
    """Takes lists of token ids and `MaxSimItem`s, in any order."""

    def __init__(self, encoder: LateEncoder) -> None:
        self.max_tokens = encoder.max_tokens
        self.tokenize = encoder.tokenize
        self._encoder = encoder

    def forward(self, items: Sequence[Sequence[int] | MaxSimItem]) -> Array:
        """object[n]: `QuestionTokens` for a list, a float for an item."""
        from models.maxsim import mean_best  # torch, which has been loaded with the encoder

        rows = np.empty(len(items), np.object_)
        tokens = [item.tokens if isinstance(item, MaxSimItem) else item for item in items]
        pools = self._encoder.pooled is not None and not all(isinstance(item, MaxSimItem) for item in items)
        for number, (item, made) in enumerate(zip(items, self._encoder.vectors(tokens, pools), strict=True)):
            if isinstance(item, MaxSimItem):
                rows[number] = mean_best(made[0], item.asked)
            else:
                rows[number] = QuestionTokens(*made)
        return rows
