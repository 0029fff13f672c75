"""Documents to a segment: passages, their terms, their vectors, columns and the documents themselves.

A segment is written under its final name in a place nothing refers to yet, and is on the disk when this
returns; a later manifest makes it part of a generation. What is cheap comes first, so that a document that
does not fit is found before any vector is computed.
"""

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from indexer.document import Document
from indexer.encoders import Encoder
from indexer.passages import Span, clip, encode_text, split, title_limit, word_offsets
from indexer.segment.analyzer import Analyzer
from indexer.segment.columns import write_columns
from indexer.segment.dense import write_dense
from indexer.segment.durable import fsync_directory, fsync_tree
from indexer.segment.lexical import write_lexical
from indexer.segment.manifest import CollectionSchema, FileEntry, SegmentEntry
from indexer.segment.segment import COLUMNS, DENSE, LEXICAL, STORE
from indexer.segment.store import write_store

Progress = Callable[[int, int], None]
"""Hears how many passages of how many are encoded."""


@dataclass(frozen=True)
class Passages:
    """The passages of some documents in order: which document's each is, and where in its text."""

    documents: Sequence[Document]
    titles: Sequence[str]
    document_of_row: NDArray[np.uint32]
    spans: Sequence[Span]

    @classmethod
    def of(
        cls, documents: Sequence[Document], schema: CollectionSchema, encoder: Encoder | None
    ) -> "Passages":
        """Cut the documents: into word pieces and such that title and passage can be read whole if there
        is an encoder, into words if not.
        """
        texts = _offsets([document.text for document in documents], encoder)
        titles = _offsets([document.title for document in documents], encoder)
        readable = _readable(encoder)
        most = schema.passage_tokens if readable is None else title_limit(readable)
        cuts = [
            split(
                document.text,
                text,
                max_tokens=_room(schema.passage_tokens, readable, len(title)),
                overlap_sentences=schema.overlap_sentences,
            )
            for document, text, title in zip(documents, texts, titles, strict=True)
        ]
        return cls(
            documents,
            [clip(each.title, title, most) for each, title in zip(documents, titles, strict=True)],
            np.repeat(np.arange(len(cuts), dtype=np.uint32), [len(cut) for cut in cuts]),
            [span for cut in cuts for span in cut],
        )

    def texts(self) -> list[str]:
        """Return the text of every passage."""
        return [
            self.documents[number].text[begin:end]
            for number, (begin, end) in zip(self.document_of_row.tolist(), self.spans, strict=True)
        ]


def build_segment(
    directory: Path,
    name: str,
    documents: Sequence[Document],
    first_seq: int,
    schema: CollectionSchema,
    encoder: Encoder | None,
    analyzer: Analyzer,
    progress: Progress | None = None,
) -> SegmentEntry:
    """Write the segment `name` of the collection in `directory`: different documents, at least one.

    Passages are numbered from `first_seq`. The encoder is needed if the schema has a dense component.
    Whatever an interrupted build left under this name is replaced.
    """
    passages = Passages.of(documents, schema, encoder)
    texts = passages.texts()
    path = fresh_directory(directory, name)
    _write_documents(path, passages, first_seq, schema)
    if "bm25" in schema.components:
        _write_terms(path, passages, texts, analyzer)
    if "dense" in schema.components:
        assert encoder is not None, "a dense component needs an encoder"
        write_dense(path / DENSE, _encode(passages, texts, encoder, progress))
    return seal(path, len(texts), len(documents), first_seq, first_seq + len(texts) - 1)


def fresh_directory(directory: Path, name: str) -> Path:
    """Make the directory of a new segment, empty. FileNotFoundError if the collection is gone."""
    path = directory / "segments" / name
    if path.exists():
        shutil.rmtree(path)
    path.mkdir()
    return path


def seal(path: Path, rows: int, documents: int, first_seq: int, last_seq: int) -> SegmentEntry:
    """Bring a finished segment to the disk and describe it."""
    fsync_tree(path)
    fsync_directory(path.parent)
    files = {file.name: FileEntry.of(file) for file in sorted(path.iterdir())}
    return SegmentEntry(
        name=path.name, rows=rows, documents=documents, first_seq=first_seq, last_seq=last_seq, files=files
    )


def _offsets(texts: Sequence[str], encoder: Encoder | None) -> list[NDArray[np.int64]]:
    return [word_offsets(text) for text in texts] if encoder is None else encoder.offsets(texts)


def _readable(encoder: Encoder | None) -> int | None:
    """Word pieces of text that the encoder reads beside its special tokens and its own prompt."""
    return None if encoder is None else encoder.max_tokens - len(encoder.tokenize([""])[0])


def _room(passage_tokens: int, readable: int | None, title: int) -> int:
    """How many pieces a passage may have below a title of so many."""
    if readable is None:
        return passage_tokens
    return min(passage_tokens, readable - min(title, title_limit(readable)))


def _write_documents(path: Path, passages: Passages, first_seq: int, schema: CollectionSchema) -> None:
    documents, rows = passages.documents, passages.document_of_row
    metadata = [document.metadata for document in documents]
    write_columns(path / COLUMNS, metadata, rows, schema.columns)
    seqs = np.arange(first_seq, first_seq + len(rows), dtype=np.int64)
    spans = np.array(passages.spans, np.uint32).reshape(-1, 2)
    jsons, ids = [document.to_json() for document in documents], [document.id for document in documents]
    write_store(path / STORE, seqs, rows, spans, jsons, ids)


def _write_terms(path: Path, passages: Passages, texts: Sequence[str], analyzer: Analyzer) -> None:
    titles = [analyzer.analyze(document.title) for document in passages.documents]
    bodies = [analyzer.analyze(text) for text in texts]
    write_lexical(path / LEXICAL, bodies, [titles[number] for number in passages.document_of_row.tolist()])


def _encode(
    passages: Passages, texts: Sequence[str], encoder: Encoder, progress: Progress | None
) -> NDArray[np.float32]:
    numbers, encoded = passages.document_of_row.tolist(), 0
    joined = [encode_text(passages.titles[number], text) for number, text in zip(numbers, texts, strict=True)]

    def report(more: int) -> None:
        nonlocal encoded
        encoded += more
        if progress is not None:
            progress(encoded, len(joined))

    return encoder.encode(joined, progress=report)
