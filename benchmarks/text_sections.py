"""Sections of documentation, whatever it was written in, as pairs: a heading asks for the prose under it."""

import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from benchmarks.text_pairs import Pair, clip, is_prose, number

# Headings that say nothing of what is under them.
DULL = re.compile(
    r"(?:references?|see also|examples?|contents|notes?|index|todo|changes|changelog|installation|install|"
    r"introduction|overview|description|background|api|usage|options|parameters|summary|misc\w*|bugs|"
    r"authors?|license|copyright|links|bibliography|further reading|what's new.*|(?:version )?v?[\d.]+.*|"
    r"acknowledge?ments?|deprecat\w*|removed|new features|bug fixes|restrictions|related commands|syntax|"
    r"default|other changes|conclusion|warning|tip|caution|important|name|synopsis|abstract|author|"
    r"selected bug fixes|feedback|support|diagnostics|exports?|methods|functions|purpose|availability)"
)
# Of what directives document one in so many is kept: references to an interface would outnumber prose.
DESCRIBED_SHARE = 4


class Section(NamedTuple):
    """Headings from the page's title down to its own, and the prose before the next heading.

    `described`: it is not a heading but what a directive documents.
    """

    path: tuple[str, ...]
    text: str
    described: bool = False


def pairs(found: Iterable[Section]) -> Iterator[Pair]:
    """Ask by heading, after the page's title where there is one, for every section that is prose.

    What announces code that was left out ("For example:") goes from the end of a text.
    """
    for section in found:
        query = asked(section.path)
        text = re.sub(r"(?<=[.!?])\s[^.!?]*:$", "", clip(section.text))
        rare = section.described and number(section.text) % DESCRIBED_SHARE
        if query and not rare and is_prose(text):
            yield Pair(query, text)


def asked(path: tuple[str, ...]) -> str:
    """Return the question of a path: its last heading with the title above; "" where that says nothing."""
    last = path[-1].strip(" :.")
    if DULL.fullmatch(last.casefold()):
        return asked(path[:-1]) if len(path) > 2 else ""
    if len(path) == 1 or path[0].casefold() in last.casefold() or DULL.fullmatch(path[0].casefold()):
        return _colon(last) if len(last.split()) > 1 else ""
    return f"{_colon(path[0])}: {last}"


def _colon(title: str) -> str:
    """Return `name --- what it is` with a colon for the dash."""
    return re.sub(r"\s+-{1,3}\s+", ": ", title)
