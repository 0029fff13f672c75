"""What every rescoring stage ends with: rescored hits in their new order, and the others behind them."""

import numpy as np

from service.stages.normalise import minmax
from service.types import Hits, Scores, Seqs


def joined(hits: Hits, seqs: Seqs, scores: Scores, weight: float, name: str) -> Hits:
    """The first of `hits` rescored in their new order, then the others, each as far below as it was before.

    `seqs` and `scores` [n] are of the first n hits: where each stands now and its new score, which is kept as
    raw score `name`. Below a `weight` of 1 the score is that share of the new one and the rest of the one
    before, both min-max normalised over the n.
    """
    number = len(scores)
    raw = np.full(len(hits), np.nan, np.float32)
    raw[:number] = scores
    if weight < 1:
        before = minmax(hits.scores[:number])
        scores = (weight * minmax(scores) + (1 - weight) * before).astype(np.float32)
    rest = scores.min() - (hits.scores[number - 1] - hits.scores[number:])
    seqs = np.concatenate([seqs, hits.seqs[number:]])
    new = Hits(seqs, np.concatenate([scores, rest]).astype(np.float32), {**hits.raw, name: raw})
    head = new.take(slice(0, number)).best(number)
    return _concatenate(head, new.take(slice(number, None)))


def _concatenate(first: Hits, second: Hits) -> Hits:
    raw = {name: np.concatenate([first.raw[name], second.raw[name]]) for name in first.raw}
    return Hits(np.concatenate([first.seqs, second.seqs]), np.concatenate([first.scores, second.scores]), raw)
