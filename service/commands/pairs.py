"""A BEIR folder of questions made from a collection's own text, for one that has no questions."""

import json
import random
import shutil
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

from indexer.document import Document
from indexer.sources import read_documents
from models.sentences import sentences
from models.training.pretraining import Pair, Passage, bfs, ict
from service.commands.common import CommandError

MadeTask = Literal["ict", "bfs"]

PASSAGE_WORDS = 150
"""Most words of a passage of several sentences: with a title it is about what an encoder reads."""


def document_of(passage: str) -> str:
    """The document that a passage of such a folder is of, by its id."""
    return passage.rpartition("#")[0]


def write_pairs(source: Path, folder: Path, task: MadeTask, number: int | None, seed: int) -> None:
    """Write a folder: passages as documents (`ID#PLACE`), questions made of them, and what answers each.

    Of more than `number` questions so many are chosen by `seed`; only what these take out of passages is
    missing there. CommandError if the text gives none.
    """
    passages = list(split_documents(read_documents(source)))
    pairs = list(ict(passages, seed) if task == "ict" else bfs(passages, seed))
    if not pairs:
        raise CommandError(_what_is_needed(source, task))
    if number is not None and number < len(pairs):
        chosen = sorted(random.Random(seed).sample(range(len(pairs)), number))  # noqa: S311 - no secret
        pairs = [pairs[place] for place in chosen]
    partial = folder.with_name(f"{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    _write(partial, passages, pairs)
    partial.replace(folder)


def split_documents(documents: Iterable[Document]) -> Iterator[Passage]:
    """The passages of documents, in order: as many whole sentences as have 150 words, none said twice."""
    for document in documents:
        text = document.text
        said = [" ".join(text[begin:end].split()) for begin, end in sentences(text)]
        for some in _pack(said):
            yield Passage(document.id, document.title, tuple(some))


def _pack(said: Sequence[str]) -> Iterator[list[str]]:
    passage: list[str] = []
    words = 0
    for sentence in said:
        length = len(sentence.split())
        if passage and words + length > PASSAGE_WORDS:
            yield passage
            passage, words = [], 0
        passage.append(sentence)
        words += length
    yield passage


def _write(folder: Path, passages: Sequence[Passage], pairs: Sequence[Pair]) -> None:
    ids, texts = list(_ids(passages)), [passage.text for passage in passages]
    for pair in pairs:
        texts[pair.place] = pair.text
    rows = zip(ids, passages, texts, strict=True)
    _write_lines(folder / "corpus.jsonl", ({"_id": i, "title": p.title, "text": t} for i, p, t in rows))
    queries = ({"_id": f"q{number}", "text": pair.query} for number, pair in enumerate(pairs))
    _write_lines(folder / "queries.jsonl", queries)
    judged = (f"q{number}\t{ids[pair.place]}\t1\n" for number, pair in enumerate(pairs))
    (folder / "qrels.tsv").write_text("query-id\tcorpus-id\tscore\n" + "".join(judged), encoding="utf-8")


def _write_lines(path: Path, records: Iterable[dict[str, Any]]) -> None:
    with path.open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(record, ensure_ascii=False) + "\n" for record in records)


def _ids(passages: Sequence[Passage]) -> Iterator[str]:
    """The id of each passage: its document's, and which passage of it."""
    document, place = "", 0
    for passage in passages:
        place = place + 1 if passage.document == document else 0
        document = passage.document
        yield f"{document}#{place}"


def _what_is_needed(source: Path, task: MadeTask) -> str:
    if task == "ict":
        return (
            f"{source}: no question can be made, since no passage has a sentence of 5 to 40 words and another"
        )
    return (
        f"{source}: no question can be made, since no document of more than {PASSAGE_WORDS} words begins "
        "with a sentence of 5 to 40 words; try --task ict"
    )
