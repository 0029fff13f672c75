"""A long document in windows: where they are, which few are read, and what their scores make together.

IDCM (Hofstätter et al., SIGIR 2021, arXiv 2105.09816): cutting, choosing and adding, so that what a document
costs a cross-encoder does not grow with its length. Pure functions over arrays. What is absent is absent
here, by lengths and masks, and never a number that a score might be.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Scores = NDArray[np.float32]
Item = list[int]
"""A question and a text as a net reads them: token ids, those of the text as complements `~id`."""


@dataclass(frozen=True)
class Windows:
    """Windows of one text in order, n of them: `tokens` and `characters`, int64 [n, 2], are the (begin, end)
    of each, overlap included.
    """

    tokens: Ints
    characters: Ints

    def __len__(self) -> int:
        return len(self.tokens)

    def take(self, places: Sequence[int] | Ints) -> "Windows":
        """These windows, in this order."""
        return Windows(self.tokens[places], self.characters[places])


@dataclass(frozen=True)
class Reading:
    """What is read of a document: an item for each window that was chosen, in the order of the text.

    `characters` int64 [windows, 2] are the (begin, end) of each; `whole` says that nothing was left out.
    """

    items: list[Item]
    characters: Ints
    whole: bool

    def __len__(self) -> int:
        """Tokens."""
        return sum(map(len, self.items))


def cut(text: str, offsets: Ints, window: int, overlap: int) -> Windows:
    """Cut a text into windows of `window` tokens, each with `overlap` tokens of its neighbours on both sides.

    `offsets` int64 [m, 2] are the characters of its tokens. A text that is no longer than the longest window
    can be is one window, and all of it is read. A window whose own tokens are blank is left out, whatever its
    neighbours say; if all are, the text is one window.
    """
    whole = Windows(np.array([[0, len(offsets)]]), np.array([[0, len(text)]]))
    if len(offsets) <= window + 2 * overlap:
        return whole
    begins = np.arange(0, len(offsets), window)
    ends = np.minimum(begins + window, len(offsets))
    says = [not _blank(text, offsets[begin:end]) for begin, end in zip(begins, ends, strict=True)]
    if not any(says):
        return whole
    firsts = np.maximum(begins[says] - overlap, 0)
    lasts = np.minimum(ends[says] + overlap, len(offsets))
    characters = np.stack([offsets[firsts, 0], offsets[lasts - 1, 1]], axis=1)
    return Windows(np.stack([firsts, lasts], axis=1), characters)


def choose(estimates: Scores, most: int) -> Ints:
    """The places of the `most` best estimates [n], ascending, all if there are no more; of ties the first."""
    best = np.argsort(-estimates, kind="stable")[:most]
    return np.sort(best).astype(np.int64)


def add_up(scores: Scores, documents: Ints, number: int, weights: Sequence[float]) -> Scores:
    """The score of each of `number` documents: float32 [number].

    `scores` [n] are those of windows and `documents` [n] says whose each is; their order does not matter. The
    r-th best window of a document counts `weights[r]` times its score; ranks that it does not have count
    nothing. Every document has a window.
    """
    order = np.lexsort((-scores, documents))
    ranked, owners = scores[order].astype(np.float64), documents[order]
    ranks = np.arange(len(owners)) - np.searchsorted(owners, owners)
    counts = ranks < len(weights)
    total = np.zeros(number)
    np.add.at(total, owners[counts], np.asarray(weights)[ranks[counts]] * ranked[counts])
    return total.astype(np.float32)


def _blank(text: str, offsets: Ints) -> bool:
    """Whether these tokens, which are neighbours, have no character but spaces."""
    return not text[int(offsets[0, 0]) : int(offsets[-1, 1])].strip()
