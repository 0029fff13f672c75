"""Vectors of chunks that know their whole document: late chunking (Günther et al. 2024, arXiv 2409.04701).

The net reads a document once, and the vector of a chunk is the mean of the states of its tokens, so a chunk
that says "it" is still near to what "it" was. A document that is longer than the net is read in windows that
overlap by half: of every later window only the second half is used, whose tokens have seen what came before.
Each window is laid out as the net knows texts, special tokens around it and prompt in front; those that the
first begins with belong to the first chunk, those that the last ends with to the last chunk. So a single
chunk over all has the vector that the document has in one piece.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Spans = Sequence[tuple[int, int]]


class Window(NamedTuple):
    """Pieces `begin` to `end` of a document are read together; the states from `fresh` on are used."""

    begin: int
    fresh: int
    end: int


def windows(pieces: int, room: int) -> list[Window]:
    """Windows of at most `room` pieces over a document of `pieces`, each overlapping the last by half.

    What is used of them are all pieces once; a document without pieces has one window nevertheless.
    """
    overlap = room // 2
    found = [Window(0, 0, min(room, pieces))]
    while (end := found[-1].end) < pieces:
        found.append(Window(end - overlap, end, min(end - overlap + room, pieces)))
    return found


def token_ranges(starts: NDArray[np.int64], chunks: Spans) -> NDArray[np.int64]:
    """The pieces that begin within each span of characters: int64 [chunks, 2], first and behind the last.

    `starts` int64 [pieces], ascending, are the characters where pieces begin. A span in which none does is
    about nothing of its own: it stands for all of them.
    """
    spans = np.array(chunks, np.int64).reshape(-1, 2)
    ranges = np.searchsorted(starts, spans)
    ranges[ranges[:, 0] >= ranges[:, 1]] = (0, len(starts))
    return ranges


def range_sums(states: NDArray[np.floating], ranges: NDArray[np.int64]) -> NDArray[np.float64]:
    """The sum of states [tokens, dim] over each range (first, behind the last): float64 [ranges, dim]."""
    sums = np.zeros((len(states) + 1, states.shape[1]))
    np.cumsum(states, axis=0, dtype=np.float64, out=sums[1:])
    difference: NDArray[np.float64] = sums[ranges[:, 1]] - sums[ranges[:, 0]]
    return difference


class Text(NamedTuple):
    """The tokens of a whole text: those `before` and `after` it, its `pieces` and where each begins.

    `starts` int64 [pieces] are characters, ascending.
    """

    before: list[int]
    pieces: list[int]
    after: list[int]
    starts: NDArray[np.int64]


class Document:
    """The chunks of one text, whose states come in by windows."""

    def __init__(self, text: Text, chunks: Spans, most: int, dim: int) -> None:
        """At most `most` tokens are read together; raises ValueError if that leaves no room for a piece."""
        room = most - len(text.before) - len(text.after)
        if room < 1:
            raise ValueError(f"{most - room} tokens around a text leave no room for it in {most}")
        self.windows = windows(len(text.pieces), room) if len(chunks) else []
        self._text, self._left = text, len(self.windows)
        self._ranges = token_ranges(text.starts, chunks)
        self._sums = np.zeros((len(chunks), dim))

    def tokens(self, window: Window) -> list[int]:
        """What the net reads of a window."""
        before, pieces, after, _ = self._text
        return [*before, *pieces[window.begin : window.end], *after]

    def add(self, window: Window, states: NDArray[np.floating]) -> int:
        """Take the states of a window's `tokens`, [tokens, dim], and say how many chunks are complete by it.

        Windows may come in any order.
        """
        before, pieces, after, _ = self._text
        inside = states[len(before) : len(states) - len(after)][window.fresh - window.begin :]
        ranges = np.clip(self._ranges - window.fresh, 0, len(inside))
        touched = np.flatnonzero(ranges[:, 0] < ranges[:, 1])
        self._sums[touched] += range_sums(inside, ranges[touched])
        if window.begin == 0:
            self._sums[self._at(0)] += states[: len(before)].sum(0, dtype=np.float64)
        if window.end == len(pieces):
            self._sums[self._at(-1)] += states[len(states) - len(after) :].sum(0, dtype=np.float64)
        self._left -= 1
        return 0 if self._left else len(self._sums)

    def vectors(self) -> NDArray[np.float32]:
        """The vectors when all windows have come: float32 [chunks, dim]; the mean, at unit length."""
        lengths = np.linalg.norm(self._sums, axis=1, keepdims=True)
        unit: NDArray[np.float64] = self._sums / np.maximum(lengths, np.finfo(np.float64).tiny)
        return unit.astype(np.float32)

    def _at(self, number: int) -> NDArray[np.bool_]:
        """Which chunks have the tokens of that end: this one, and those that stand for all."""
        whole: NDArray[np.bool_] = (self._ranges == (0, len(self._text.pieces))).all(1)
        whole[number] = True
        return whole
