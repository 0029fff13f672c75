"""Pairs of a query and the document that answers it, cleaned, drawn and written as BEIR folders.

A pair is natural when the source itself made it: a heading and its section, a term and its definition, the
one line about a package and its description. Nothing here looks at what a pair means; what is kept or left
out is by length, by the share of words in a text and by repetition.
"""

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

SHORTEST, LONGEST = 30, 250
PROSE = 0.8
_LETTERS = re.compile(r"[^\W\d_]{2,}|\b[aAI]\b")
_COMMON = re.compile(r"\b(?:the|of|and|to|a|in|is|for|that|with|are|be|or|by|this|an)\b", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Pair:
    """One query and its one document; `title` is empty for most."""

    query: str
    text: str
    title: str = ""


@dataclass(frozen=True, slots=True)
class Source:
    """Where a folder's text is from and on what terms, for a model card to quote."""

    source: str
    licence: str
    made: str


def squeeze(text: str) -> str:
    """Return the text on one line, every run of white space a single space."""
    return " ".join(text.split())


def clip(text: str, words: int = LONGEST) -> str:
    """At most so many words: cut after the last sentence that ends within them, else after the last word."""
    held = text.split()
    if len(held) <= words:
        return " ".join(held)
    held = held[:words]
    ends = [number for number, word in enumerate(held) if word[-1] in ".!?"]
    return " ".join(held[: ends[-1] + 1] if ends and ends[-1] >= words // 2 else held)


def is_prose(text: str, shortest: int = SHORTEST) -> bool:
    """Whether a text is English sentences: long enough, nearly all words, and the little words among them."""
    words = text.split()
    lettered = sum(1 for word in words if _LETTERS.search(word))
    common = len(_COMMON.findall(text))
    return len(words) >= shortest and lettered >= PROSE * len(words) and common >= 0.15 * len(words)


def draw(pairs: Iterable[Pair], most: int, seed: int) -> list[Pair]:
    """At most so many pairs, no query and no text twice, the same ones for the same seed.

    Which pairs are drawn depends on each pair's own text, so one that goes or comes moves no other; they
    are returned in the order in which they came. Of two pairs with one query or one text the first stays.
    """
    kept: list[Pair] = []
    seen: set[str] = set()
    for pair in pairs:
        keys = {f"q {pair.query.casefold()}", f"d {pair.text[:200].casefold()}"}
        if not keys & seen:
            seen |= keys
            kept.append(pair)
    drawn = set(sorted(kept, key=lambda pair: number(f"{seed} {pair.query} {pair.text}"))[:most])
    return [pair for pair in kept if pair in drawn]


def number(text: str) -> int:
    """Return a number that depends on the text alone, for choices that every run repeats."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")


def write(folder: Path, pairs: Iterable[Pair], source: Source) -> int:
    """Write pairs as a BEIR folder with its `source.json`; return how many."""
    rows = [(f"{folder.name}-{at}", pair) for at, pair in enumerate(pairs)]
    return write_judged(
        folder,
        documents={key: (pair.title, pair.text) for key, pair in rows},
        queries={f"q-{key}": pair.query for key, pair in rows},
        judgments=[(f"q-{key}", key) for key, _ in rows],
        source=source,
    )


def write_judged(
    folder: Path,
    documents: Mapping[str, tuple[str, str]],
    queries: Mapping[str, str],
    judgments: Iterable[tuple[str, str]],
    source: Source,
) -> int:
    """Write (title, text) by id, query by id and (query, document) judgments of grade 1; return documents."""
    folder.mkdir(parents=True, exist_ok=True)
    corpus = ({"_id": key, "title": title, "text": text} for key, (title, text) in documents.items())
    _lines(folder / "corpus.jsonl", corpus)
    _lines(folder / "queries.jsonl", ({"_id": key, "text": text} for key, text in queries.items()))
    judged = "".join(f"{query}\t{document}\t1\n" for query, document in judgments)
    (folder / "qrels.tsv").write_text("query-id\tcorpus-id\tscore\n" + judged, encoding="utf-8")
    terms = {
        "source": source.source, "licence": source.licence, "made": source.made,
        "documents": len(documents), "queries": len(queries),
    }  # fmt: skip
    written = json.dumps(terms, indent=2, ensure_ascii=False)
    (folder / "source.json").write_text(written + "\n", encoding="utf-8")
    return len(documents)


def _lines(path: Path, records: Iterable[Mapping[str, str]]) -> None:
    with path.open("w", encoding="utf-8") as file:
        for record in records:
            file.write(json.dumps(record, ensure_ascii=False) + "\n")
