"""Dictionaries in dictd's format: a headword asks for its definition.

An index line is headword, offset and length, tab separated, numbers in base 64 (A-Z a-z 0-9 + /, the most
significant digit first; dictd(8)). The entries lie in a file that gzip reads (.dict.dz). Several headwords
may point to one entry.
"""

import re
import string
from collections.abc import Callable, Iterable, Iterator

from benchmarks.text_pairs import Pair, clip, is_prose, squeeze
from benchmarks.text_wordnet import asked

DIGITS = {
    digit: at
    for at, digit in enumerate(string.ascii_uppercase + string.ascii_lowercase + string.digits + "+/")
}
_ADDRESS = re.compile(r"<?\(?\b(?:https?|ftp)://[^\s)>]*\)?>?")
# How far GCIDE indents a quotation, in spaces.
QUOTED = 9
# `, n.; pl. {Words}.`, `, v. t.`: what stands between pronunciation and definition.
_GRAMMAR = re.compile(
    r"\A,?\s*(?:(?:n|a|v|adv|prep|conj|interj|imp|p|pl|t|i|pr|vb|obs)\.[,;:&]?\s*)*"
    r"(?:;?\s*pl\. [\w ,]+\.\s*)?"
)
_CITED = re.compile(r"\s*--\s?(?:[A-Z]\.\s*)*[A-Z][\w']+(?:\s[A-Z][\w'.]*)*\s*\.?(?=\s|$)")
_PARAGRAPHS = re.compile(r"\n\s*\n")


def whole(digits: str) -> int:
    """Return the number that base-64 digits stand for: "A" is 0, "BA" is 64."""
    value = 0
    for digit in digits:
        value = value * 64 + DIGITS[digit]
    return value


def entries(index: Iterable[str], text: bytes) -> Iterator[tuple[str, str]]:
    """Headword and entry, each entry once, by its first headword that is not about the file itself."""
    seen: set[tuple[int, int]] = set()
    for line in index:
        word, start, length = line.rstrip("\n").split("\t")[:3]
        at = whole(start), whole(length)
        if at not in seen and not word.startswith("00"):
            seen.add(at)
            yield word, _decoded(text[at[0] : at[0] + at[1]])


def _decoded(entry: bytes) -> str:
    try:
        return entry.decode("utf-8")
    except UnicodeDecodeError:  # older dictionaries say nothing of their encoding, which is Latin-1
        return entry.decode("latin-1")


def pairs(found: Iterable[tuple[str, str]], read: Callable[[str], tuple[str, str]]) -> Iterator[Pair]:
    """Ask for every definition that is prose of some length; `read` takes an entry to headword and text."""
    for _, entry in found:
        term, text = read(entry)
        if term and is_prose(text) and re.search(r"[^\W\d_]{3}", term):
            yield Pair(asked(term), clip(text))


def foldoc(entry: str) -> tuple[str, str]:
    """FOLDOC: headwords at the margin, text indented, {links}, <subjects>, a (year-month-day) at the end.

    Entries of the subject Debian are left out: they are under other terms than the rest.
    """
    if "<Debian>" in entry:
        return "", ""
    head, body = _parted(entry)
    body = re.sub(r"<[a-z ,/-]+>", " ", _unlinked(body))
    body = re.sub(r"\(\d{4}-\d\d-\d\d\)|\b(?:Usenet )?newsgroups?: \S+|\(mailto:[^)]*\)", " ", body)
    return head, squeeze(_tidy(body))


def jargon(entry: str) -> tuple[str, str]:
    """The Jargon File: headword at the margin, pronunciation and part of speech, text indented by four."""
    head, body = _parted(entry)
    body = re.sub(r"\A\s*(?:/[^\n]*/,?\s*)?(?:\w+\.(?:,\s*)?)+\n", "", body)
    return head, squeeze(_tidy(re.sub(r"\[[^\]]*\]", " ", _unlinked(body))))


def elements(entry: str) -> tuple[str, str]:
    """Chemical elements: the name, the fields Symbol, Atomic number and weight, then some sentences."""
    head, _, body = entry.strip().partition("\n")
    body = re.sub(r"^(?:Symbol|At\w+ \w+): .*$", " ", body, flags=re.MULTILINE)
    return head, squeeze(_unlinked(body))


def gcide(entry: str) -> tuple[str, str]:
    r"""GCIDE: `Word \Pro*nun"ci*a`tion\, n. [etymology]`, numbered senses, quotations, [sources in brackets].

    An entry of several spellings, each with its pronunciation, is left out: the headword is "".
    """
    if entry.count("\\") != 2:
        return "", ""
    head, _, body = entry.split("\\")
    lines = [line for line in body.splitlines() if len(line) - len(line.lstrip()) < QUOTED]
    blocks = _PARAGRAPHS.split("\n".join(lines))
    text = "\n".join(each for each in blocks if not each.lstrip().startswith(("Syn:", "Note:", "{")))
    while (shorter := re.sub(r"\[[^\[\]]*\]", " ", text)) != text:
        text = shorter
    text = re.sub(r"\A\s*\([^()]*[*?\"][^()]*\)", "", text)
    text = _GRAMMAR.sub("", squeeze(_unlinked(text)), count=1)
    return head.strip(), squeeze(_tidy(_CITED.sub("", text)))


def _parted(entry: str) -> tuple[str, str]:
    """Return the first headword at the margin, and every line that is indented or empty."""
    lines = entry.splitlines()
    heads = [line.strip() for line in lines if line.strip() and not line[0].isspace()]
    body = "\n".join(line for line in lines if not line.strip() or line[0].isspace())
    return heads[0] if heads else "", body


def _unlinked(text: str) -> str:
    """Return the text with {links} as their words and without addresses."""
    return re.sub(r"\{([^{}]*)\}", lambda link: _ADDRESS.sub("", link[1]).strip(" \n("), text)


def _tidy(text: str) -> str:
    """Return the text without addresses and what they leave: empty brackets, a space before a stop."""
    text = re.sub(r"\(\s*\)|\[\s*\]", " ", _ADDRESS.sub(" ", text))
    return re.sub(r"\s+([.,;:])", r"\1", text)
