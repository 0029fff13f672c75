"""Scores of one list made comparable with those of others: four ways, each with a rule for what is missing.

All take the scores of what one retriever found for one question and nothing else, so no other question and
no other retriever changes a figure. They are affine maps whose coefficients come from the list that was
retrieved (`listed`), also where they are applied to scores of passages that the list lacks: statistics over
a union that was filled afterwards would depend on what others found. Everything is float64.

What a list did not find is given `missing`: 0, or for z-scores, where 0 is the mean, the lowest of the list.

The first three are in Bruch, Gai and Ingber, "An Analysis of Fusion Functions for Hybrid Retrieval", TOIS
2023; the last is known from vector databases (Qdrant).
"""

from collections.abc import Callable
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from service.types import Scores

Normalisation = Literal["minmax", "theoretical", "zscore", "distribution"]
Values = NDArray[np.float64]


def minmax(scores: Scores, listed: Scores | None = None) -> Values:
    """`(x - min) / (max - min)`; all 0 where the list's are equal, since they then say nothing about order.

    A real score of something below the list's end comes out below 0.
    """
    known = scores if listed is None else listed
    low = float(known.min(initial=np.inf))
    return _map(scores, low, float(known.max(initial=-np.inf)) - low)


def theoretical(scores: Scores, floor: float, listed: Scores | None = None) -> Values:
    """`(x - floor) / (max - floor)`, `floor` being the lowest score that the scorer can give.

    So the list's last is not forced to 0 and the list's length does not matter. All 0 where the best is no
    better than the floor.
    """
    known = scores if listed is None else listed
    return _map(scores, floor, float(known.max(initial=-np.inf)) - floor)


def zscore(scores: Scores, listed: Scores | None = None) -> Values:
    """`(x - mean) / deviation`, of the sample form (n - 1); all 0 where the list's are equal, or one."""
    mean, deviation = _moments(scores if listed is None else listed)
    return _map(scores, mean, deviation)


def distribution(scores: Scores, listed: Scores | None = None) -> Values:
    """Distribution-based: 0 at three deviations below the mean and 1 at three above, clipped to [0, 1].

    The deviation is of the sample form (n - 1). Where the list's scores are equal, or one, they get 0.5, and
    what is not in it 0 below and 1 above, as in the limit.
    """
    mean, deviation = _moments(scores if listed is None else listed)
    if deviation == 0:
        return 0.5 + 0.5 * np.sign(scores.astype(np.float64) - mean)
    return np.clip(_map(scores, mean - 3 * deviation, 6 * deviation), 0, 1)


def normaliser(name: Normalisation, floor: float | None) -> Callable[[Scores, Scores], Values]:
    """The function of this name, of scores and those of the list; only `theoretical` uses the floor."""
    if name != "theoretical":
        return {"minmax": minmax, "zscore": zscore, "distribution": distribution}[name]
    assert floor is not None, "a pipeline without a floor was not refused"
    return lambda scores, listed: theoretical(scores, floor, listed)


def missing(name: Normalisation, values: Values) -> float:
    """What counts for something that a list did not find, `values` being those of the list."""
    return float(values.min()) if name == "zscore" and len(values) else 0.0


def _map(scores: Scores, zero: float, span: float) -> Values:
    """0 at `zero` and 1 a span above; all 0 if there is no span above."""
    if span <= 0:
        return np.zeros(len(scores))
    return (scores.astype(np.float64) - zero) / span


def _moments(scores: Scores) -> tuple[float, float]:
    """Mean and sample deviation, which is exactly 0 for equal scores, whatever rounding makes of it."""
    if len(scores) == 0:
        return 0.0, 0.0
    values = scores.astype(np.float64)
    if values.min() == values.max():
        return float(values[0]), 0.0
    return float(values.mean()), float(values.std(ddof=1))
