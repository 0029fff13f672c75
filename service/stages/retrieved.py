"""What every retriever ends with: the best of what the parts of a snapshot gave, in the one order."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from service.types import Hits


def retrieved(stage: str, found: Sequence[tuple[NDArray[np.int64], NDArray[np.float32]]], k: int) -> Hits:
    """The k best of (seqs, scores) of every part, the scores kept under the stage's name too."""
    seqs = np.concatenate([np.empty(0, np.int64), *(seqs for seqs, _ in found)])
    scores = np.concatenate([np.empty(0, np.float32), *(scores for _, scores in found)])
    best = Hits(seqs, scores, {}).best(k)
    return Hits(best.seqs, best.scores, {stage: best.scores})
