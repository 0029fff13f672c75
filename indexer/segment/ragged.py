"""Rows of different lengths that stand one behind the other: where they begin, and blocks of them."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray


def offsets_of(sizes: Sequence[int] | NDArray[np.int64]) -> NDArray[np.int64]:
    """Where each row begins, and where the last ends: int64 [n + 1]."""
    offsets = np.zeros(len(sizes) + 1, np.int64)
    np.cumsum(sizes, out=offsets[1:])
    return offsets


def blocks(sizes: NDArray[np.int64], most: int) -> Iterator[tuple[int, int, NDArray[np.int64]]]:
    """Stretches of rows, from one to before another, with `most` elements at most, or of one row; and where
    in the stretch its rows begin.
    """
    offsets = offsets_of(sizes)
    begin = 0
    while begin < len(sizes):
        last = int(np.searchsorted(offsets, offsets[begin] + most, side="right")) - 1
        end = max(begin + 1, min(last, len(sizes)))
        yield begin, end, offsets[begin : end + 1] - offsets[begin]
        begin = end


def kept(array: NDArray[Any], starts: NDArray[np.int64], keep: NDArray[np.bool_]) -> Iterator[NDArray[Any]]:
    """What an array has of the kept rows, as views of as many neighbours as there are."""
    edges = np.flatnonzero(np.diff(keep.astype(np.int8), prepend=0, append=0))
    for begin, end in edges.reshape(-1, 2).tolist():
        yield array[starts[begin] : starts[end]]
