"""A question as the kernels take it, and its terms as they need them."""

from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from indexer.kernels.scalars import Int


class Asked(NamedTuple):
    """A question put to a segment.

    `terms` are vocabulary entries, `rank_of` has each entry's rank in the segment, or -1; `weights` sum to at
    most 65,535. A sum of products times `factor`, a power of two, is a score. Rows whose sum is below `floor`
    are not asked for.
    """

    rank_of: NDArray[np.int32]
    terms: NDArray[np.int32]
    weights: NDArray[np.uint32]
    factor: float
    floor: int


@njit(nogil=True, cache=True)
def set_table(table: NDArray[np.uint32], asked: Asked) -> None:
    """Put the weights of the terms that the segment has into `table` by rank."""
    for i in range(len(asked.terms)):
        if asked.rank_of[asked.terms[i]] >= 0:
            table[asked.rank_of[asked.terms[i]]] = asked.weights[i]


@njit(nogil=True, cache=True)
def clear_table(table: NDArray[np.uint32], asked: Asked) -> None:
    """Make `table` all zero again."""
    for term in asked.terms:
        if asked.rank_of[term] >= 0:
            table[asked.rank_of[term]] = 0


@njit(nogil=True, cache=True)
def heaviest(asked: Asked, count: Int) -> tuple[NDArray[np.int64], NDArray[np.uint32]]:
    """Ranks and weights of at most `count` of the terms that the segment has, by falling weight."""
    size, room = 0, min(count, len(asked.terms))
    ranks, weights = np.empty(room, np.int64), np.empty(room, np.uint32)
    for i in range(len(asked.terms)):
        rank, weight = asked.rank_of[asked.terms[i]], asked.weights[i]
        if rank >= 0 and (size < room or (room > 0 and weight > weights[size - 1])):
            place = min(size, room - 1)
            while place > 0 and weights[place - 1] < weight:
                weights[place], ranks[place] = weights[place - 1], ranks[place - 1]
                place -= 1
            weights[place], ranks[place] = weight, rank
            size = min(size + 1, room)
    return ranks[:size], weights[:size]
