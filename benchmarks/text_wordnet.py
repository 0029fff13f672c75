"""WordNet's data files: a synset's words ask for its gloss.

Format of a line (wndb(5WN)): offset, file, type, count of words in two hexadecimal digits, that many pairs
of word and sense, count of pointers in three decimal digits, that many pointers of four fields (symbol,
offset, part of speech, words), then " | " and the gloss: a definition and quoted examples after semicolons.
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from benchmarks.text_pairs import Pair, number, squeeze

HYPERNYMS = ("@", "@i")
SHORTEST = 8
_EXAMPLE = re.compile(r';?\s*"([^"]*)"')
_MARKER = re.compile(r"\((?:a|p|ip)\)$")


class Synset(NamedTuple):
    """Words of one meaning; `above` are the keys (part of speech and offset) of more general ones."""

    key: str
    words: tuple[str, ...]
    above: tuple[str, ...]
    definition: str
    examples: tuple[str, ...]


def parse(line: str) -> Synset | None:
    """Return the synset of a data line; None for a line of the licence, which begins with spaces."""
    if line.startswith("  "):
        return None
    head, _, gloss = line.partition(" | ")
    fields = head.split()
    count = int(fields[3], 16)
    words = tuple(_MARKER.sub("", word).replace("_", " ") for word in fields[4 : 4 + 2 * count : 2])
    rest = fields[4 + 2 * count :]
    pointers = [rest[1 + 4 * at : 5 + 4 * at] for at in range(int(rest[0]))]
    above = tuple(f"{part}{offset}" for symbol, offset, part, _ in pointers if symbol in HYPERNYMS)
    examples = tuple(squeeze(example) for example in _EXAMPLE.findall(gloss))
    definition = squeeze(_EXAMPLE.sub("", gloss)).strip(" ;")
    part = "a" if fields[2] == "s" else fields[2]
    return Synset(f"{part}{fields[0]}", words, above, definition, examples)


def pairs(lines: Iterable[str]) -> Iterator[Pair]:
    """Ask for every definition of some length by the words for it, in the lines of all data files together.

    A word of several synsets does not say which is meant: then the query names more of them, or what
    the thing is. Examples that hold a word of the synset are left out, or they would give the answer away.
    """
    known = {synset.key: synset for line in lines if (synset := parse(line))}
    senses = Counter(word.casefold() for synset in known.values() for word in set(synset.words))
    for synset in known.values():
        text = "; ".join([synset.definition, *_foreign(synset)])
        term = _term(synset, known, senses)
        if term and len(text.split()) >= SHORTEST and term.casefold() not in text.casefold():
            yield Pair(asked(term, verb=synset.key[0] == "v"), text)


def asked(term: str, verb: bool = False) -> str:
    """Return the term by itself, or as a question after it; which one depends on the term alone."""
    forms = (term, term, f"what does it mean to {term}" if verb else f"what is {term}", f"{term} meaning")
    return forms[number(term) % len(forms)]


def _foreign(synset: Synset) -> list[str]:
    stems = [word.casefold()[: max(4, len(word) - 2)] for word in synset.words]
    return [each for each in synset.examples if not any(stem in each.casefold() for stem in stems)]


def _term(synset: Synset, known: dict[str, Synset], senses: Counter[str]) -> str | None:
    """Return the words to ask by: a word of this meaning only, else two words, else a word and what it is."""
    own = [word for word in synset.words if senses[word.casefold()] == 1]
    if own:
        return own[0]
    if len(synset.words) > 1:
        return " ".join(synset.words[:2])
    general = [known[key].words[0] for key in synset.above if key in known]
    return f"{synset.words[0]} ({general[0]})" if general else None
