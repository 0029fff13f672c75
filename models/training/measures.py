"""What a student is worth on held-out groups: nDCG of their documents in its order."""

from collections.abc import Iterable, Sequence

import numpy as np


def ndcg(ranked: Iterable[tuple[Sequence[float], Sequence[bool]]], depth: int = 10) -> float:
    """Mean nDCG@depth of groups, each the scores of its documents and which of these are relevant.

    Of equal scores the relevant document comes last, so that a student that tells nothing apart earns
    nothing. Groups without a relevant document are left out; 0.0 if there are no others.
    """
    found = [
        _ndcg(np.asarray(scores), np.asarray(relevant), depth) for scores, relevant in ranked if any(relevant)
    ]
    return float(np.mean(found)) if found else 0.0


def _ndcg(scores: np.ndarray, relevant: np.ndarray, depth: int) -> float:
    order = np.lexsort((relevant, -scores))
    discounts = 1 / np.log2(np.arange(2, depth + 2))
    gains = relevant[order][:depth]
    ideal = discounts[: min(depth, int(relevant.sum()))].sum()
    return float((gains * discounts[: len(gains)]).sum() / ideal)
