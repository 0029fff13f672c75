"""The k best of a stream of (score, row): a binary heap with the worst at its root.

Best means the higher score and, at equal scores, the smaller row, so that a
ranking does not depend on the order in which rows were seen.
"""

import numpy as np
from numba import njit
from numpy.typing import NDArray


@njit(nogil=True, cache=True)
def push(scores: NDArray[np.float32], rows: NDArray[np.int64], size: int, score: float, row: int) -> int:
    """Offer a row to a heap of `size` entries in arrays as long as k; gives the new size."""
    if size < len(scores):
        _rise(scores, rows, size, score, row)
        return size + 1
    if size > 0 and _worse(scores[0], rows[0], score, row):
        _sink(scores, rows, size, score, row)
    return size


@njit(nogil=True, cache=True)
def settle(scores: NDArray[np.float32], rows: NDArray[np.int64], size: int) -> None:
    """Turn a heap into a list, best first, in place."""
    for last in range(size - 1, 0, -1):
        score, row = scores[last], rows[last]
        scores[last], rows[last] = scores[0], rows[0]
        _sink(scores, rows, last, score, row)


@njit(nogil=True, cache=True)
def _worse(a_score: float, a_row: int, b_score: float, b_row: int) -> bool:
    return a_score < b_score or (a_score == b_score and a_row > b_row)


@njit(nogil=True, cache=True)
def _rise(scores: NDArray[np.float32], rows: NDArray[np.int64], place: int, score: float, row: int) -> None:
    """Put an entry at a free leaf and move it up past better ones."""
    while place > 0:
        parent = (place - 1) // 2
        if not _worse(score, row, scores[parent], rows[parent]):
            break
        scores[place], rows[place] = scores[parent], rows[parent]
        place = parent
    scores[place], rows[place] = score, row


@njit(nogil=True, cache=True)
def _sink(scores: NDArray[np.float32], rows: NDArray[np.int64], size: int, score: float, row: int) -> None:
    """Replace the root of a heap of `size` by an entry and move it down past worse ones."""
    place = 0
    while True:
        child = 2 * place + 1
        if child >= size:
            break
        if child + 1 < size and _worse(scores[child + 1], rows[child + 1], scores[child], rows[child]):
            child += 1
        if not _worse(scores[child], rows[child], score, row):
            break
        scores[place], rows[place] = scores[child], rows[child]
        place = child
    scores[place], rows[place] = score, row
