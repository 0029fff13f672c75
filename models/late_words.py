"""Which token vectors belong to the same whole word, so that an index may keep one of them.

ColBERTer's bag of whole words (Hofstätter et al. 2022, arXiv 2203.13088, BOW²): a word that comes again, or
in several pieces, is the mean of all its vectors. Words end at whitespace and punctuation, so this suits
scripts that write them; an ideograph is a word of its own.
"""

import re
import unicodedata
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

WORD = re.compile(r"\S+")


def word_labels(
    text: str, spans: NDArray[np.int64], normal: Callable[[str], str] = str.lower
) -> NDArray[np.int32]:
    """The number of the word that each row stands for: int32 [rows], by first appearance, without gaps.

    `spans` int64 [rows, 2] are characters (see `models.late.LateEncoder.pieces`); a row that stands for none
    has a number of its own. Words are the same if `normal` makes them the same, which may also stem them.
    """
    owners = _owners(text, normal)
    numbers: dict[str | int, int] = {}
    labels = np.empty(len(spans), np.int32)
    for row, (begin, end) in enumerate(spans.tolist()):
        key = row if begin == end else owners.get(end - 1, normal(text[begin:end]))
        labels[row] = numbers.setdefault(key, len(numbers))
    return labels


def _owners(text: str, normal: Callable[[str], str]) -> dict[int, str]:
    """The word at every character that is part of one."""
    ends = {ord(character): " " for character in set(text) if _alone(character)}
    return {
        position: word
        for match in WORD.finditer(text.translate(ends))
        for word in [normal(match.group())]
        for position in range(*match.span())
    }


def _alone(character: str) -> bool:
    """Whether no word goes on across this: a punctuation mark, a symbol, a space, a control, an ideograph."""
    if character.isascii():
        return not character.isalnum()
    return unicodedata.category(character)[0] in "PSZC" or "CJK" in unicodedata.name(character, "")
