"""Debian's package descriptions: the one-line summary asks for the long description.

Stanzas of `Translation-en` (deb822): `Package`, `Description-md5`, `Description-en`; the long text's lines
begin with a space, an empty one holds a full stop.
"""

import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from benchmarks.text_pairs import Pair, clip, is_prose, squeeze

_DULL = re.compile(
    r"transitional|dummy|debug(?:ging)? symbols|metapackage|meta-package|obsolete", re.IGNORECASE
)


class Description(NamedTuple):
    """What a package is: in a line, and in paragraphs of one line each."""

    package: str
    summary: str
    paragraphs: tuple[str, ...]


def descriptions(listed: str) -> Iterator[Description]:
    """Every stanza that has a description."""
    for stanza in listed.split("\n\n"):
        name = re.search(r"^Package: (.+)$", stanza, re.MULTILINE)
        _, found, description = stanza.partition("\nDescription-en: ")
        summary, _, text = description.partition("\n")
        if name and found:
            yield Description(name[1].strip(), squeeze(summary), _paragraphs(text))


def pairs(found: Iterable[Description]) -> Iterator[Pair]:
    """Ask by the summary for the description; of packages that begin alike the shortest name stays.

    The description loses what only says which part of a whole this package is, as its summary does not.
    """
    by_opening: dict[str, Description] = {}
    for each in sorted(found, key=lambda each: (len(each.package), each.package)):
        if each.paragraphs and not _DULL.search(each.summary):
            by_opening.setdefault(each.paragraphs[0], each)
    for each in by_opening.values():
        text = " ".join(each.paragraphs)
        if is_prose(text) and len(each.summary.split()) >= 3:
            named = each.package.casefold() in each.summary.casefold()
            yield Pair(each.summary, clip(text), "" if named else each.package)


def _paragraphs(text: str) -> tuple[str, ...]:
    """Paragraphs between the lines that are a full stop, each on one line, without the marks of lists."""
    parts = re.split(r"^ \.$", text, flags=re.MULTILINE)
    lists = [re.sub(r"^\s+[*+-]\s+", " ", part, flags=re.MULTILINE) for part in parts]
    return tuple(squeezed for part in lists if (squeezed := squeeze(part)))
