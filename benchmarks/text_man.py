"""Manual pages in man(7) macros: what a page or a section is named asks for its text.

A reader of the macros that the Linux man-pages use, not of troff: fonts and spacing are dropped, examples
(.nf, .EX), synopses and tables (.TS) too, and what is left is paragraphs of words.
"""

import re
import shlex
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from benchmarks.text_pairs import Pair, clip, is_prose, squeeze

WORDS = 200
HIDDEN = {"nf": "fi", "EX": "EE", "TS": "TE", "SY": "YS", "de": ".", "ig": "."}
ALTERNATING = {"BR", "RB", "BI", "IB", "IR", "RI"}
PLAIN = {"B", "I", "SM", "SB", "SS", "SH"}
COMMON = {
    "NAME", "SYNOPSIS", "LIBRARY", "DESCRIPTION", "OPTIONS", "ATTRIBUTES", "ERRORS", "FILES", "EXAMPLES",
    "EXAMPLE", "NOTES", "BUGS", "HISTORY", "STANDARDS", "VERSIONS", "AUTHOR", "AUTHORS", "COLOPHON",
    "COPYRIGHT", "GIT", "SEE ALSO", "CONFORMING TO", "RETURN VALUE", "EXIT STATUS", "REPORTING BUGS",
    "PROGRAM SOURCE",
}  # fmt: skip
_ESCAPES = (
    (re.compile(r"\\f(?:\[[^\]]*\]|\(..|.)"), ""),
    (re.compile(r"\\s[-+]?\d"), ""),
    (re.compile(r"\\[&|^/,%:)]|\\$"), ""),
    (re.compile(r"\\(?:\(|\[|\*\(|\*\[)(?:lq|rq|dq)\]?"), '"'),
    (re.compile(r"\\(?:\(|\[)(?:aq|oq|cq|ga)\]?"), "'"),
    (re.compile(r"\\(?:\(|\[)(?:em|en|hy|mi)\]?|\\-"), "-"),
    (re.compile(r"\\(?:\(|\[)ha\]?"), "^"),
    (re.compile(r"\\(?:\(|\[)ti\]?"), "~"),
    (re.compile(r"\\(?:\(|\[)bu\]?"), ""),
    (re.compile(r"\\\*?(?:\(..|\[[^\]]*\])"), ""),
    (re.compile(r"\\(?:e|\(rs|\\)"), r"\\"),
    (re.compile(r"\\[ ~0]"), " "),
)


class Section(NamedTuple):
    """A section (.SH) or, where `under` names its section, a part of one (.SS)."""

    heading: str
    under: str
    text: str


class Page(NamedTuple):
    """A page's name, the line that says what it is, and its sections in order."""

    name: str
    summary: str
    sections: tuple[Section, ...]


def page(source: str) -> Page | None:
    """Return the page; None where there is no NAME section of the form `name, other - what it is`."""
    sections = tuple(_sections(source.splitlines()))
    named = next((section.text for section in sections if section.heading == "NAME"), "")
    names, dash, summary = named.partition(" - ")
    if not dash:
        return None
    return Page(names.split(",")[0].strip(), summary.strip(), sections)


def pairs(pages: Iterable[Page]) -> Iterator[Pair]:
    """Ask by a page's summary for its description, and by page and heading for sections of its own."""
    for each in pages:
        for section in each.sections:
            if section.heading == "DESCRIPTION" and len(each.summary.split()) >= 3:
                query = each.summary
            elif section.heading not in COMMON:
                query = f"{each.name} {_lowered(section.heading)}"
            else:
                continue
            if is_prose(section.text):
                yield Pair(query, clip(section.text, WORDS))


def _sections(lines: list[str]) -> Iterator[Section]:
    heading, under, held = "", "", list[str]()
    for macro, text in _read(lines):
        if macro in ("SH", "SS"):
            yield Section(heading, under, squeeze(" ".join(held)))
            under = (under or heading) if macro == "SS" else ""
            heading, held = squeeze(text), []
        else:
            held.append(text)
    yield Section(heading, under, squeeze(" ".join(held)))


def _read(lines: list[str]) -> Iterator[tuple[str, str]]:
    """Macro ("" for plain text) and words of each line to be read; a heading may be on the next line."""
    hidden, waiting = "", ""
    for line in lines:
        macro, _, rest = line[1:].strip().partition(" ") if line.startswith((".", "'")) else ("", "", line)
        if hidden:
            hidden = "" if macro == hidden else hidden
        elif macro in HIDDEN:
            hidden = HIDDEN[macro]
        elif macro in ("SH", "SS") and not rest.strip():
            waiting = macro
        elif not macro and line.startswith("."):
            continue
        elif not macro or macro in PLAIN or macro in ALTERNATING:
            yield waiting or macro, _words(macro, rest)
            waiting = ""


def _words(macro: str, rest: str) -> str:
    rest = re.sub(r'\\".*', "", rest)
    if macro:
        rest = ("" if macro in ALTERNATING else " ").join(_arguments(rest))
    for found, instead in _ESCAPES:
        rest = found.sub(instead, rest)
    return rest


def _arguments(rest: str) -> list[str]:
    """Words, or several in double quotes, as troff parts them."""
    lexer = shlex.shlex(rest, posix=False, punctuation_chars=False)
    lexer.whitespace_split, lexer.quotes, lexer.commenters = True, '"', ""
    try:
        return [each.strip('"') for each in lexer]
    except ValueError:  # a quotation that is never closed
        return rest.replace('"', "").split()


def _lowered(heading: str) -> str:
    return heading.lower() if heading.isupper() else heading
