"""The order in which clients get texts back that were scored."""

from typing import NamedTuple

import numpy as np

from service.types import Scores


class Ranked(NamedTuple):
    """The place of a text in the request, and its score."""

    place: int
    score: float


def ranked(scores: Scores, most: int | None = None) -> list[Ranked]:
    """At most so many texts by score, best first; of equal ones the earlier."""
    order = np.argsort(-scores, kind="stable")[:most]
    return [Ranked(*each) for each in zip(order.tolist(), scores[order].tolist(), strict=True)]
