"""Binary search of many hashed strings, verified against the stored bytes."""

import numpy as np
from numba import njit
from numpy.typing import NDArray

from indexer.kernels.scalars import Int


@njit(nogil=True, cache=True)
def find(
    hashes: NDArray[np.uint64],
    numbers: NDArray[np.uint32],
    offsets: NDArray[np.uint64],
    stored: NDArray[np.uint8],
    wanted_hashes: NDArray[np.uint64],
    wanted_offsets: NDArray[np.uint64],
    wanted: NDArray[np.uint8],
) -> NDArray[np.int64]:
    """Number of every wanted string, -1 where there is none.

    `hashes` ascend; entry i is string `numbers[i]`, whose bytes are
    `stored[offsets[n]:offsets[n + 1]]`. Wanted strings are laid out alike.
    """
    found = np.full(len(wanted_hashes), -1, np.int64)
    for i in range(len(wanted_hashes)):
        low = np.searchsorted(hashes, wanted_hashes[i])
        while low < len(hashes) and hashes[low] == wanted_hashes[i]:
            number = numbers[low]
            if _same(
                stored, offsets[number], offsets[number + 1], wanted, wanted_offsets[i], wanted_offsets[i + 1]
            ):
                found[i] = number
                break
            low += 1
    return found


@njit(nogil=True, cache=True)
def _same(
    a: NDArray[np.uint8], a_begin: Int, a_end: Int, b: NDArray[np.uint8], b_begin: Int, b_end: int
) -> bool:
    length = np.int64(a_end) - np.int64(a_begin)
    if length != np.int64(b_end) - np.int64(b_begin):
        return False
    same = True
    for i in range(length):
        same &= a[np.int64(a_begin) + i] == b[np.int64(b_begin) + i]
    return same
