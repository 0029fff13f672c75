"""How a text is laid out for a net of token vectors, and which of its tokens get one.

Lists of tokens travel through batches and queues as lists of integers and still say what counts: a token
that is read but gets no vector stands as the complement of its number, `~id` (as in `models.sparse_layout`),
and a token that gets one although no other token looks at it as `id + UNSEEN`. The latter is how ColBERT
fills up questions (Khattab & Zaharia 2020, arXiv 2004.12832).
"""

import string
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from tokenizers import Encoding

from models.tokens import padded

UNSEEN = 1 << 30
"""Above the numbers of every vocabulary."""

SPACES = " ▁Ġ"
"""What vocabularies write for the space before a word."""


class Pieces(NamedTuple):
    """What the rows of a text stand for: token `ids` int32 [rows], characters `spans` int64 [rows, 2].

    Special, marker and fill tokens stand for no characters: (0, 0).
    """

    ids: NDArray[np.int32]
    spans: NDArray[np.int64]


class Batch(NamedTuple):
    """Signed tokens as a net reads them: all are matrices [texts, longest].

    `ids` int64 are entries of the vocabulary; `seen` says of each whether others look at it, `counted`
    whether it gets a vector. Both are false of padding.
    """

    ids: NDArray[np.int64]
    seen: NDArray[np.bool_]
    counted: NDArray[np.bool_]


class Fill(NamedTuple):
    """The token that fills a text up to `length` tokens; `seen` says whether other tokens look at it."""

    token: int
    length: int
    seen: bool


@dataclass(frozen=True)
class Layout:
    """What goes before questions or passages, how many tokens there may be, and which get no vector.

    The tokens of `marker` get a vector and those of `prompt`, which follows it, do not; nor do those whose
    number is in `skip`.
    """

    most: int
    marker: str = ""
    prompt: str = ""
    skip: frozenset[int] = frozenset()
    fill: Fill | None = None

    @property
    def before(self) -> str:
        """The text in front of every text."""
        return self.marker + self.prompt

    def lay(self, encoding: Encoding, pad: int) -> list[int]:
        """The signed tokens of a text that was encoded with `before` in front; never empty.

        At least one of them gets a vector: where none would, all do.
        """
        ids: list[int] = encoding.ids or [pad]
        mute = self._mute(encoding)
        laid = [~each if each in self.skip or number in mute else each for number, each in enumerate(ids)]
        return [*(laid if max(laid) >= 0 else ids), *self._filling(len(ids))]

    def pieces(self, encoding: Encoding, laid: Sequence[int]) -> Pieces:
        """What the vectors of the tokens stand for that `lay` made of this encoding."""
        shift, spans = len(self.before), np.zeros((len(laid), 2), np.int64)
        spans[: len(encoding.ids)] = np.array(encoding.offsets, np.int64).reshape(-1, 2)
        spans = np.where(spans[:, 1:] > shift, np.maximum(spans - shift, 0), 0)
        numbers = np.array(laid, np.int64)
        kept = numbers >= 0
        return Pieces((numbers[kept] % UNSEEN).astype(np.int32), spans[kept])

    def described(self) -> list[Any]:
        """All of this in a form that can be hashed."""
        return [self.most, self.marker, self.prompt, sorted(self.skip), self.fill]

    def _mute(self, encoding: Encoding) -> range | list[int]:
        """Positions of the prompt."""
        if not self.prompt:
            return range(0)
        first, last = len(self.marker), len(self.before)
        return [number for number, (_, end) in enumerate(encoding.offsets) if first < end <= last]

    def _filling(self, tokens: int) -> list[int]:
        if self.fill is None:
            return []
        token = self.fill.token if self.fill.seen else self.fill.token + UNSEEN
        return [token] * (self.fill.length - tokens)


def batched(tokens: Sequence[Sequence[int]], pad: int) -> Batch:
    """Signed tokens of some texts as one batch, filled up with the vocabulary entry `pad`."""
    signed, real = padded(tokens, ~pad)
    counted, seen = signed >= 0, real & (signed < UNSEEN)
    return Batch(np.where(counted, signed, ~signed) % UNSEEN, seen, counted)


def punctuation(vocabulary: dict[str, int]) -> frozenset[int]:
    """The entries that are a single ASCII punctuation mark, with a space before it or without."""
    return frozenset(
        number
        for entry, number in vocabulary.items()
        if len(mark := entry.lstrip(SPACES)) == 1 and mark in string.punctuation
    )


def entries(tokenizer: Any, words: Iterable[str]) -> frozenset[int]:
    """The numbers of those of these words that are vocabulary entries."""
    found = {word: tokenizer.convert_tokens_to_ids(word) for word in words}
    unknown = {None, tokenizer.unk_token_id}
    return frozenset(
        number for word, number in found.items() if number not in unknown or word == tokenizer.unk_token
    )
