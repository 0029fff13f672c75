"""The tantivy index of a collection: full query syntax.

One index per collection, written by the worker alone in a working directory. A
generation is a directory of hard links to its files, which tantivy never
changes, beside copies of the two that it replaces; so old generations stay
readable while the index goes on, at the cost of a few directory entries.

Scores are tantivy's BM25 with its own statistics, which count deleted passages
until a merge; plain questions are scored by `lexical` instead. Sequence numbers
are signed: on an unsigned field tantivy's deletion by term deletes nothing.
"""

import json
import os
import shutil
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import numpy as np
import tantivy
from numpy.typing import NDArray

from indexer.segment.analyzer import Analyzer
from indexer.segment.highlight import highlights
from indexer.segment.manifest import FileEntry
from indexer.segment.syntax import ID_FIELD, TEXT_FIELDS, Reading

META = "meta.json"
COPIED = (META, ".managed.json")
PARTS = ("fast", "fieldnorm", "idx", "pos", "store", "term")
HEAP = 64_000_000
GROWTH = 4

Allowed = Callable[[NDArray[np.int64]], NDArray[np.bool_]]


def index_schema() -> tantivy.Schema:
    """Fields: `seq`, raw `id`, and `title`, `text` with positions, whose terms come analysed."""
    builder = tantivy.SchemaBuilder()
    builder.add_integer_field("seq", indexed=True, fast=True)
    builder.add_text_field(ID_FIELD, tokenizer_name="raw", index_option="basic")
    for name in TEXT_FIELDS:
        builder.add_text_field(name, tokenizer_name="raw", index_option="position")
    return builder.build()


class FulltextWriter:
    """The one writer of a working directory. It holds the GIL: not for a process that answers searches."""

    def __init__(self, working: Path, analyzer: Analyzer) -> None:
        working.mkdir(exist_ok=True)
        self._analyzer = analyzer
        self._index = tantivy.Index(index_schema(), path=str(working))
        self._writer = self._index.writer(HEAP, 1)

    def add(self, seq: int, document_id: str, title: str, text: str) -> None:
        """Add a passage; searchable in snapshots linked after the next commit."""
        document = tantivy.Document()
        document.add_integer("seq", seq)
        document.add_text(ID_FIELD, document_id)
        document.add_pre_tokenized_text("title", self._analyzer.tokenized(title))
        document.add_pre_tokenized_text("text", self._analyzer.tokenized(text))
        self._writer.add_document(document)

    def delete(self, seqs: Iterable[int]) -> None:
        """Delete passages added before."""
        for seq in seqs:
            self._writer.delete_documents_by_term("seq", int(seq))

    def commit(self) -> None:
        """Make what was added and deleted durable in the working directory."""
        self._writer.commit()

    def close(self) -> None:
        """Wait for merges and let the directory go; what was not committed is lost."""
        self._writer.wait_merging_threads()


class Fulltext:
    """A snapshot of the index, for reading. Each open one costs a thread of tantivy's, so few are kept."""

    def __init__(self, snapshot: Path, analyzer: Analyzer, title_boost: float = 1.0) -> None:
        self._analyzer, self._title_boost = analyzer, title_boost
        index = tantivy.Index.open(str(snapshot))
        self._schema, self._searcher = index.schema, index.searcher()

    def search(
        self, question: str, k: int, allowed: Allowed | None = None
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """The k best allowed passages: sequence numbers and scores by (-score, seq).

        `allowed` answers bool[n] for int64[n] sequence numbers. Raises QuerySyntaxError.
        """
        query = Reading(question, self._analyzer, self._schema, self._title_boost).query
        limit = k + 1
        while True:
            seqs, scores = self._best(query, limit)
            mask = np.ones(len(seqs), np.bool_) if allowed is None else allowed(seqs)
            kept = scores[mask]
            # Equal scores come in tantivy's order, so the k-th is known once a lower score is seen.
            if len(seqs) < limit or (len(kept) >= k and kept[k - 1] > scores[-1]):
                order = np.lexsort((seqs[mask], -kept))[:k]
                return seqs[mask][order], kept[order]
            limit *= GROWTH

    def highlights(self, question: str, text: str) -> list[str]:
        """Fragments of `text` with what full syntax asks for marked (see `highlight.highlights`)."""
        reading = Reading(question, self._analyzer, self._schema)
        return highlights(self._analyzer, reading.wanted, text)

    def _best(self, query: tantivy.Query, limit: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        hits = self._searcher.search(query, min(limit, max(1, self._searcher.num_docs)), count=False).hits
        seqs = self._searcher.fast_field_values("seq", [address for _, address in hits])
        return np.array(seqs, np.int64), np.array([score for score, _ in hits], np.float32)


def link_snapshot(working: Path, target: Path) -> None:
    """Make the directory `target` a snapshot of the last commit; the caller synchronises it.

    What an interrupted attempt left there is replaced. A merge may replace files while we link:
    then the list of files is read again.
    """
    for _ in range(100):
        shutil.rmtree(target, ignore_errors=True)
        target.mkdir()
        try:
            _link(working, target)
        except FileNotFoundError:
            continue
        return
    raise RuntimeError(f"{working}: its files changed a hundred times while a snapshot was made")


def relink_working(snapshot: Path | None, working: Path) -> None:
    """Put the working directory back to a published snapshot (None: empty): tantivy may have run ahead."""
    shutil.rmtree(working, ignore_errors=True)
    working.mkdir()
    if snapshot is not None:
        _link(snapshot, working)


def measure_snapshot(snapshot: Path, known: Mapping[str, FileEntry]) -> dict[str, FileEntry]:
    """Size and checksum of every file but locks; what is `known` of linked files is taken over."""
    return {
        path.name: known[path.name] if path.name in known and path.name not in COPIED else FileEntry.of(path)
        for path in sorted(snapshot.iterdir())
        if path.suffix != ".lock"
    }


def _link(source: Path, target: Path) -> None:
    meta = (source / META).read_bytes()
    for name in _files(meta):
        os.link(source / name, target / name)
    shutil.copyfile(source / ".managed.json", target / ".managed.json")
    (target / META).write_bytes(meta)


def _files(meta: bytes) -> list[str]:
    """The immutable files of the segments that a meta.json names."""
    names = []
    for segment in json.loads(meta)["segments"]:
        stem = segment["segment_id"].replace("-", "")
        names += [f"{stem}.{part}" for part in PARTS]
        if segment["deletes"] is not None:
            names.append(f"{stem}.{segment['deletes']['opstamp']}.del")
    return names
