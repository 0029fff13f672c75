"""Cuts a document's text into passages that an encoder can read whole.

Passages end where sentences end, hold as many sentences as fit and repeat the last ones of the passage
before, so that what is said across a border can be found. Passages are spans of characters of the text, so
whatever a user is shown is the text given; each of its characters that is not a space is in one.
"""

import re
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from models.sentences import Span, sentences, strip

MOST_TITLE_TOKENS = 64

Offsets = NDArray[np.int64]

_CJK = r"\u3041-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7a3\uf900-\ufaff"
_WORD = re.compile(rf"[{_CJK}]|[^\W{_CJK}]+")


def word_offsets(text: str) -> Offsets:
    """Return int64[m, 2], the characters of each word: what counts where no encoder counts word pieces."""
    return np.array([match.span() for match in _WORD.finditer(text)], np.int64).reshape(-1, 2)


def joint_offsets(offsets: Sequence[Offsets]) -> Offsets:
    """Return pieces that stand for those of several tokenizers of one text: whatever part of it has at most
    so many of them has at most so many of each.

    A piece begins where a piece of any begins, several of them where several of one begin (the bytes of a
    character, say), and ends where the next begins or a space does.
    """
    first, *others = offsets
    if all(np.array_equal(first, other) for other in others):
        return first
    starts = [each[:, 0] for each in offsets]
    ordinals = [np.arange(len(each)) - np.searchsorted(each, each) for each in starts]
    width = 1 + max(len(each) for each in offsets)
    keys = np.concatenate([start * width + ordinal for start, ordinal in zip(starts, ordinals, strict=True)])
    pieces, place = np.unique(keys, return_inverse=True)
    begins, ends = pieces // width, np.zeros(len(pieces), np.int64)
    np.maximum.at(ends, place, np.concatenate([each[:, 1] for each in offsets]))
    ends = np.minimum(np.maximum.accumulate(ends), np.append(begins[1:], ends.max(initial=0)))
    return np.stack([begins, ends], axis=1)


def title_limit(readable: int) -> int:
    """How many word pieces of a title are joined to a passage: at most a third of what an encoder reads."""
    return min(MOST_TITLE_TOKENS, readable // 3)


def clip(text: str, offsets: Offsets, most: int) -> str:
    """Return the text up to the end of its piece number `most`; all of it if it has no more pieces."""
    return text if len(offsets) <= most else text[: int(offsets[most - 1, 1])]


def encode_text(title: str, passage: str) -> str:
    """Return what the encoder reads of a passage, as BEIR joins title and text."""
    return f"{title} {passage}" if title else passage


def split(text: str, offsets: Offsets, *, max_tokens: int = 240, overlap_sentences: int = 1) -> list[Span]:
    """Return the passages of `text` as (begin, end) of characters, in order; at least one.

    `offsets`, int64[m, 2], are the characters of each word piece of the whole text. A passage has at most
    `max_tokens` pieces. A sentence that is longer is cut between words, or if it has none, between pieces.
    A text that fits is one passage.
    """
    if len(offsets) <= max_tokens:
        return [(0, len(text))]
    units = [unit for sentence in sentences(text) for unit in _cut(text, sentence, offsets, max_tokens)]
    firsts = np.searchsorted(offsets[:, 0], [begin for begin, _ in units])
    return [
        (units[first][0], units[last][1])
        for first, last in _pack(np.append(firsts, len(offsets)), max_tokens, overlap_sentences)
    ]


def _cut(text: str, sentence: Span, offsets: Offsets, budget: int) -> Iterator[Span]:
    """Give the sentence in parts of at most `budget` pieces."""
    begin, end = sentence
    first, last = np.searchsorted(offsets[:, 0], sentence)
    while last - first > budget:
        first = _border(offsets, int(first), budget)
        border = int(offsets[first, 0])
        if border > begin:
            yield strip(text, begin, border)
            begin = border
    yield begin, end


def _border(offsets: Offsets, first: int, budget: int) -> int:
    """Choose the piece at which the next part begins: a word's first in the later half, if there is one."""
    candidates = np.arange(first + 1 + budget // 2, first + budget + 1)
    spaced = candidates[offsets[candidates, 0] > offsets[candidates - 1, 1]]
    return int(spaced[-1]) if len(spaced) else first + budget


def _pack(firsts: NDArray[np.int64], budget: int, overlap: int) -> Iterator[tuple[int, int]]:
    """Give (first unit, last unit) of each passage; unit i has the pieces firsts[i] to firsts[i + 1]."""
    fresh, units = 0, len(firsts) - 1
    while fresh < units:
        earliest = int(np.searchsorted(firsts, firsts[fresh + 1] - budget))
        begin = min(fresh, max(earliest, fresh - overlap, 0))
        end = max(fresh + 1, int(np.searchsorted(firsts, firsts[begin] + budget, side="right")) - 1)
        yield begin, end - 1
        fresh = end
