"""Real passages and questions to encode: descriptions of Debian packages, and judged collections.

Debian: summary and description of every package with a text of its own but some thousand, whose one-line
summaries are the questions: so a question has near relatives among the passages, never itself. Collections:
the documents of BEIR folders one after another, with their own queries.
"""

import subprocess
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np

from indexer.sources import read_documents, read_queries

LISTS = Path("/var/lib/apt/lists")
READER = "/usr/lib/apt/apt-helper"
ENGLISH = (
    "adi", "cacm", "cosqa", "cranfield", "ictx_fever", "ictx_hotpotqa", "ictx_nq", "ictx_qampari", "lisa",
    "medline", "medquad_liveqa", "noveleval", "pubmedqa", "scifact", "time", "vaswani",
)  # fmt: skip


Text = TypeVar("Text", str, tuple[str, str])


class Texts(NamedTuple):
    """What is encoded, every text once."""

    passages: list[str]
    questions: list[str]


class MissingDataError(RuntimeError):
    """Texts that are not on this machine; the message says how to get them."""


def debian(questions: int, lists: Path = LISTS) -> Texts:
    """From apt's lists of descriptions; `questions` packages are held out."""
    files = sorted(lists.glob("*_i18n_Translation-en*"))
    if not files:
        raise MissingDataError(
            f"{lists} has no English package descriptions: apt-get update -o Acquire::Languages=en"
        )
    listed = subprocess.run([READER, "cat-file", *files], capture_output=True, check=True, text=True)
    packages = _unique((summary, text) for summary, text in _descriptions(listed.stdout))
    order = np.random.default_rng(0).permutation(len(packages))
    asked, indexed = order[:questions], np.sort(order[questions:])
    return Texts(
        ["\n".join(packages[number]) for number in indexed],
        _unique(packages[number][0] for number in asked),
    )


def _descriptions(lists: str) -> Iterator[tuple[str, str]]:
    """Summary and text of each stanza; a text's lines begin with a space, empty ones hold a full stop."""
    for stanza in lists.split("\n\n"):
        _, found, description = stanza.partition("\nDescription-en: ")
        summary, _, text = description.partition("\n")
        if found:
            yield summary.strip(), "\n".join(line.strip() for line in text.splitlines() if line != " .")


def collections(directory: Path | None, questions: int) -> Texts:
    """Of the English BEIR folders in `directory`; at most so many questions, drawn from all alike."""
    folders = [directory / name for name in ENGLISH if (directory / name).is_dir()] if directory else []
    if not folders:
        raise MissingDataError(
            f"no judged collections in {directory}: name a folder of BEIR folders, such as {ENGLISH[0]} and "
            f"{ENGLISH[1]}, with --collections"
        )
    documents = (document for folder in folders for document in read_documents(folder))
    passages = _unique(f"{document.title or ''}\n{document.text}".strip() for document in documents)
    asked = _unique(text for folder in folders for text in read_queries(folder).values())
    return Texts(passages, drawn(asked, questions))


def drawn(texts: Sequence[str], count: int) -> list[str]:
    """At most `count` of them, in random order."""
    return [texts[number] for number in np.random.default_rng(1).permutation(len(texts))[:count]]


def _unique(texts: Iterable[Text]) -> list[Text]:
    return list(dict.fromkeys(texts))
