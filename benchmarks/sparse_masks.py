"""Which passages a search may give: those that live, and of them the random share that a filter passes."""

import numpy as np
from numpy.typing import NDArray

DEAD = 0.05
SHARES = (0.5, 0.1, 0.01, 0.001)

Mask = NDArray[np.bool_]


def live(passages: int) -> Mask:
    """All but one in twenty."""
    return np.random.default_rng(5).random(passages) >= DEAD


def filters(passages: int) -> dict[str, Mask]:
    """Passages that live and are let through, by the filter's selectivity in per cent."""
    drawn, living = np.random.default_rng(6).random(passages), live(passages)
    return {f"{100 * share:g}%": living & (drawn < share) for share in SHARES}
