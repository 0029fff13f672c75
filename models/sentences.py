"""Where the sentences of a text are.

They are found by rules rather than a model: a missed border costs little, a slow one would cost every
document. Passages end where sentences end, and what is cut out of a passage is whole sentences.
"""

import re
from itertools import pairwise

Span = tuple[int, int]
"""Characters (begin, end) of a text."""

_CLOSING = r"[\"'”’»)\]}」』）】〉》]*+"
# Possessive (`++`, `*+`) and tried only where a run begins: a text may be a megabyte of dots.
_END = re.compile(rf"(?<![.!?…])[.!?…]++{_CLOSING}(?=\s)|[。！？｡]++{_CLOSING}|．(?!\d)|\n[^\S\n]*+\n\s*+")
_TITLES = "Mr Mrs Ms Dr Prof Sr Jr St Mt Rev Gen Col Lt Capt Sgt Gov Sen Rep Hon Inc Ltd Co Corp"
_TERMS = "vs cf al viz ca approx resp No Nos Vol pp ed eds Fig Figs Eq Eqs Sec Ch Ref Refs Tab Ex Art"
_MONTHS = "Jan Feb Mar Apr Jun Jul Aug Sep Sept Oct Nov Dec"
_ABBREVIATIONS = frozenset(f"{_TITLES} {_TERMS} {_TERMS.lower()} {_MONTHS}".split()) - {"no", "art", "ex"}
_LAST_WORD = re.compile(r"[^\s(\[{\"'“‘/-]*$")
_POINTED = re.compile(r"(?:[^\W\d_]\.)*[^\W\d_]|(?:[^\W\d_]{1,2}\.)+[^\W\d_]{1,2}")
_LIST_NUMBER = re.compile(r"(?:^|\n)[^\S\n]*\d{1,3}$")


def sentences(text: str) -> list[Span]:
    """Return the sentences of a text, without the spaces around them."""
    ends = [end.end() for end in _END.finditer(text) if not _goes_on(text, end)]
    spans = [strip(text, *span) for span in pairwise([0, *ends, len(text)])]
    return [(begin, end) for begin, end in spans if begin < end]


def _goes_on(text: str, end: re.Match[str]) -> bool:
    """Whether a single point ends an abbreviation, an initial or the number of a list's item."""
    if end.group() != ".":
        return False
    before = text[max(0, end.start() - 12) : end.start()]
    word = _LAST_WORD.search(before)
    assert word is not None, "the pattern may be empty"
    known = word.group() in _ABBREVIATIONS or _POINTED.fullmatch(word.group())
    return bool(known or _LIST_NUMBER.search(before))


def strip(text: str, begin: int, end: int) -> Span:
    """Return the span without the spaces around what it has."""
    inside = text[begin:end]
    return begin + len(inside) - len(inside.lstrip()), begin + len(inside.rstrip())
