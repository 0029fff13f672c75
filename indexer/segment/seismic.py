"""The approximate index of a large segment's sparse vectors, beside the forward index it refers to.

Lists keep so many postings by weight of all terms together, so that each is as long as its term deserves. The
proportions were chosen on encodings of real documents and questions held out from the choice
(docs/decisions/0008).
"""

import threading
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from indexer.kernels.forward import TABLE, Forward
from indexer.kernels.seismic import Knobs, Lists, Space, search
from indexer.kernels.seismic_build import Recipe, build, histogram
from indexer.kernels.terms import Asked
from indexer.segment.arrays import open_arrays, write_arrays

SEISMIC = "seismic.bin"
SEED = 1


class Size(NamedTuple):
    """How much of the postings lists keep: `share` of all, and of a list `longest` times the mean at most."""

    share: float = 0.2
    longest: float = 3.0
    rows_per_block: float = 20.0
    energy: float = 0.2


USUAL = Size()


def write_seismic(
    path: Path, forward: Forward, starts: NDArray[np.int64], postings: NDArray[np.uint32], size: Size = USUAL
) -> None:
    """Build the index of a segment from its forward index and its postings."""
    lists = build(forward, starts, postings, _recipe(starts, postings, size), np.random.default_rng(SEED))
    names = ("of_term", "rows_from", "rows", "summary_from", "summaries")
    longest = int(np.diff(lists[1].astype(np.int64)).max(initial=0))
    blocks = int(np.diff(lists[0].astype(np.int64)).max(initial=0))
    write_arrays(path, {**dict(zip(names, lists, strict=True)), "most": np.array([longest, blocks])})


def _recipe(starts: NDArray[np.int64], postings: NDArray[np.uint32], size: Size) -> Recipe:
    kept = int(size.share * len(postings))
    from_above = np.cumsum(histogram(postings)[::-1])
    least = TABLE - 1 - int(np.searchsorted(from_above, kept))
    mean = kept / max(1, starts.shape[1] - 1)
    return Recipe(
        least=max(1, least),
        longest=max(1, int(size.longest * mean)),
        rows_per_block=size.rows_per_block,
        leading=15,
        smallest=2,
        energy=size.energy,
    )


class Seismic:
    """Reader of the lists, and the search over them."""

    def __init__(self, path: Path, forward: Forward) -> None:
        arrays = open_arrays(path)
        longest, self._blocks = arrays["most"].tolist()
        self._lists = Lists(
            arrays["of_term"],
            arrays["rows_from"],
            arrays["rows"],
            arrays["summary_from"],
            arrays["summaries"],
            longest,
        )
        self._forward = forward
        self._rows = len(forward.tail_starts) - 1

    def search(
        self, asked: Asked, knobs: Knobs, k: int, closed: NDArray[np.uint32]
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """About the k best rows, and their scores; `closed` has `bits` of those that must not be found."""
        space = _SPACES.of(self._rows, self._blocks * min(knobs.query_cut, len(asked.terms)))
        best: tuple[NDArray[np.int64], NDArray[np.float32]] = search(
            self._forward, self._lists, asked, knobs, k, closed, space
        )
        return best


def bits(mask: NDArray[np.bool_]) -> NDArray[np.uint32]:
    """A mask as bits, the lowest first, in whole 32-bit words."""
    packed = np.packbits(mask, bitorder="little")
    return np.concatenate([packed, np.zeros(-len(packed) % 4, np.uint8)]).view(np.uint32)


class _Spaces(threading.local):
    """Scratch that a thread's searches share; it grows to what the largest of them needs."""

    def __init__(self) -> None:
        self._space: Space | None = None

    def of(self, rows: int, blocks: int) -> Space:
        space = self._space
        if space is None or len(space.found) <= rows or len(space.order) < blocks:
            score, block, order = (np.zeros(blocks, np.uint32) for _ in range(3))
            table, seen = np.zeros(TABLE, np.uint32), np.zeros(-(-rows // 32), np.uint32)
            space = Space(table, seen, score, block, order, np.zeros(rows + 1, np.uint32))
            self._space = space
        return space


_SPACES = _Spaces()
