"""A score that is part sparse and part dense, with no more dense look-ups than an exact answer needs.

Candidates come in descending order of their sparse score, `φ = weight · sparse + (1 - weight) · dense`, and
no dense score exceeds a bound. So once the k-th best φ so far is above what the next candidate would have
with a dense score of `bound`, neither it nor any after it can be among the k best (Leonhardt et al.,
"Efficient Neural Ranking using Forward Indexes", WWW 2022). Their faster variant takes the largest dense
score seen so far for the bound, and misses candidates whose dense score is larger still; it is not offered.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

GROWTH = 2
"""How many times as long each block is as the one before: few looks at the bound, and few look-ups wasted."""

Values = NDArray[np.float64]
Scores = NDArray[np.float32]


class Interpolated(NamedTuple):
    """Both float32, of the first candidates, as many as were looked up: φ and the dense score."""

    scores: Scores
    dense: Scores


def interpolate(
    sparse: Values,
    look_up: Callable[[slice], Scores],
    weight: float,
    bound: float | None,
    k: int,
    first_block: int,
    growth: int = GROWTH,
) -> Interpolated:
    """Scores of so many candidates from the first that every one of the k best is among them.

    `sparse` [n] descends; `look_up` gives the dense scores of a slice of the candidates, none above `bound`
    (None: everything is looked up); 0 <= weight <= 1. Blocks grow from `first_block`.

    That the k best are the same as of all candidates, ties included and whatever decides these, follows from
    rounding being monotone: for a weight in [0, 1] each operation of `_joined` is, so the φ computed for
    any later candidate, whose sparse score is no larger and whose dense score is within the bound, is at most
    the φ computed from the next one's sparse score and the bound. It stops only where this is strictly below
    the k-th best: what is left cannot even tie.
    """
    scores, dense = np.empty(0, np.float32), np.empty(0, np.float32)
    for block in _blocks(len(sparse), len(sparse) if bound is None else first_block, growth):
        if bound is not None and len(scores) >= k:
            (reachable,) = _joined(sparse[block.start : block.start + 1], np.array([bound]), weight)
            if np.partition(scores, -k)[-k] > reachable:
                break
        found = look_up(block)
        dense = np.append(dense, found)
        scores = np.append(scores, _joined(sparse[block], found.astype(np.float64), weight))
    return Interpolated(scores, dense)


def bound_of_products(question: Scores, longest: float) -> float:
    """What no dot product of `question` with a vector at most so long exceeds, as float32 sums compute it.

    By Cauchy and Schwarz the exact sum of |q_i| |p_i| is at most the product of the lengths. A computed sum,
    in whatever order and fused or not, rounds each term at most once a component, and once more for a scale,
    each time by a factor of at most 1 + u, u = 2**-24; and (1 + u)**n <= 1 + 2 n u while n u <= 1. The margin
    is for one rounding more, which is above what the float64 arithmetic of the lengths and of this product
    can lose; what underflow adds is below the smallest normal number.
    """
    length = float(np.linalg.norm(question.astype(np.float64)))
    margin = 1 + (len(question) + 2) * float(np.finfo(np.float32).eps)
    return length * longest * margin + float(np.finfo(np.float32).tiny)


def _joined(sparse: Values, dense: Values, weight: float) -> Scores:
    return (weight * sparse + (1 - weight) * dense).astype(np.float32)


def _blocks(number: int, first: int, growth: int) -> Iterator[slice]:
    begin, size = 0, first
    while begin < number:
        yield slice(begin, min(begin + size, number))
        begin, size = begin + size, size * growth
