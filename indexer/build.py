"""Documents to a segment: passages, their terms, their vectors, columns and the documents themselves.

A segment is written under its final name in a place nothing refers to yet, and is on the disk when this
returns; a later manifest makes it part of a generation. What is cheap comes first, so that a document that
does not fit is found before any vector is computed.
"""

import logging
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from indexer.document import Document
from indexer.encoders import CollectionEncoders, DenseEncoder, Encoder, KeysEncoder, LateEncoder, Scorer
from indexer.passage_keys import key_bytes, key_centre, key_lengths, key_rows_of
from indexer.passages import clip, encode_text, joint_offsets, split, title_limit, word_offsets
from indexer.segment.analyzer import Analyzer
from indexer.segment.coalesce import coalesce
from indexer.segment.columns import write_columns
from indexer.segment.dense import write_dense
from indexer.segment.durable import fsync_directory, fsync_tree
from indexer.segment.keys import write_keys
from indexer.segment.late import write_late
from indexer.segment.lexical import write_lexical
from indexer.segment.lists import add_lists
from indexer.segment.manifest import CollectionSchema, FileEntry, SegmentEntry
from indexer.segment.quality import write_quality
from indexer.segment.segment import COLUMNS, DENSE, DOCUMENTS, KEYS, LATE, LEXICAL, QUALITY, SPARSE, STORE
from indexer.segment.sparse import write_sparse
from indexer.segment.store import write_store
from indexer.token_vectors import codebook, token_rows
from models.csr import Csr, prune
from models.sentences import Span

logger = logging.getLogger(__name__)

Mask = NDArray[np.bool_]
Progress = Callable[[int, int], None]
"""Hears how many encodings of how many are made; a passage has one by each encoder."""


@dataclass(frozen=True)
class Passages:
    """The passages of some documents in order: which document's each is, and where in its text."""

    documents: Sequence[Document]
    titles: Sequence[str]
    document_of_row: NDArray[np.uint32]
    spans: Sequence[Span]

    @classmethod
    def of(
        cls, documents: Sequence[Document], schema: CollectionSchema, encoders: Sequence[Encoder]
    ) -> "Passages":
        """Cut the documents: into word pieces and such that every encoder can read title and passage whole,
        into words if there is none.
        """
        texts = _offsets([document.text for document in documents], encoders)
        titles = _offsets([document.title for document in documents], encoders)
        readable = _readable(encoders)
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

    def encoded_texts(self) -> list[str]:
        """Return what encoders read of every passage."""
        numbers = self.document_of_row.tolist()
        return [
            encode_text(self.titles[number], text) for number, text in zip(numbers, self.texts(), strict=True)
        ]

    def pairs(self) -> list[tuple[str, str]]:
        """Return the title of every passage's document, whole, and the passage's text as the store has it."""
        numbers = self.document_of_row.tolist()
        titles = (self.documents[number].title for number in numbers)
        return list(zip(titles, self.texts(), strict=True))

    def whole(self) -> tuple[list[str], list[list[Span]]]:
        """Return what an encoder reads of every document at once, and where in that its passages are.

        The title is of the first passage; the others know of it what the encoder makes of context.
        """
        texts = [
            encode_text(title, each.text) for title, each in zip(self.titles, self.documents, strict=True)
        ]
        spans: list[list[Span]] = [[] for _ in self.documents]
        for number, (begin, end) in zip(self.document_of_row.tolist(), self.spans, strict=True):
            shift = len(texts[number]) - len(self.documents[number].text)
            spans[number].append((begin + shift if spans[number] else 0, end + shift))
        return texts, spans


def build_segment(
    directory: Path,
    name: str,
    documents: Sequence[Document],
    first_seq: int,
    schema: CollectionSchema,
    encoders: CollectionEncoders,
    analyzer: Analyzer,
    progress: Progress | None = None,
) -> SegmentEntry:
    """Write the segment `name` of the collection in `directory`: different documents, at least one.

    Passages are numbered from `first_seq`. The encoders are those that the schema's components need.
    Whatever an interrupted build left under this name is replaced.
    """
    readers = encoders.encoders()
    passages = Passages.of(documents, schema, readers)
    path, rows = fresh_directory(directory, name), len(passages.spans)
    _write_documents(path, passages, first_seq, schema)
    if "bm25" in schema.components:
        _write_terms(path, passages, analyzer, schema)
    nets = len(readers) + ("keys" in schema.components)
    texts, report = passages.encoded_texts(), _counted(progress, rows * nets)
    if "dense" in schema.components:
        assert encoders.dense is not None, "a dense component needs an encoder"
        _write_dense(path, passages, _vectors(passages, texts, schema, encoders.dense, report), schema)
    pruned = _write_sparse(path, texts, schema, encoders, report) if "sparse" in schema.components else 0
    if "late" in schema.components:
        assert encoders.late is not None, "late interaction needs an encoder"
        _write_late(path, texts, schema, encoders.late, report)
    if "keys" in schema.components:
        assert encoders.in_context is not None, "keys need a language model"
        _write_keys(path, passages.pairs(), encoders.in_context, report)
    return seal(path, rows, len(documents), first_seq, first_seq + rows - 1, pruned)


def fresh_directory(directory: Path, name: str) -> Path:
    """Make the directory of a new segment, empty. FileNotFoundError if the collection is gone."""
    path = directory / "segments" / name
    if path.exists():
        shutil.rmtree(path)
    path.mkdir()
    return path


def seal(
    path: Path, rows: int, documents: int, first_seq: int, last_seq: int, pruned_rows: int
) -> SegmentEntry:
    """Bring a finished segment to the disk and describe it."""
    fsync_tree(path)
    fsync_directory(path.parent)
    return SegmentEntry(
        name=path.name,
        rows=rows,
        documents=documents,
        first_seq=first_seq,
        last_seq=last_seq,
        files={file.name: FileEntry.of(file) for file in sorted(path.iterdir())},
        pruned_rows=pruned_rows,
    )


def _offsets(texts: Sequence[str], encoders: Sequence[Encoder]) -> list[NDArray[np.int64]]:
    if not encoders:
        return [word_offsets(text) for text in texts]
    by_encoder = [encoder.offsets(texts) for encoder in encoders]
    return [joint_offsets(of_text) for of_text in zip(*by_encoder, strict=True)]


def _readable(encoders: Sequence[Encoder]) -> int | None:
    """Word pieces of text that every encoder reads beside its special tokens and its own prompt."""
    return min((each.max_tokens - len(each.tokenize([""])[0]) for each in encoders), default=None)


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


def _write_terms(path: Path, passages: Passages, analyzer: Analyzer, schema: CollectionSchema) -> None:
    """Write the terms of passages and, where they are scored whole, those of documents: passages overlap."""
    titles = [analyzer.analyze(document.title) for document in passages.documents]
    bodies = [analyzer.analyze(text) for text in passages.texts()]
    write_lexical(path / LEXICAL, bodies, [titles[number] for number in passages.document_of_row.tolist()])
    if schema.lexical_unit == "document":
        whole = [analyzer.analyze(document.text) for document in passages.documents]
        write_lexical(path / DOCUMENTS, whole, titles)


def _vectors(
    passages: Passages,
    texts: Sequence[str],
    schema: CollectionSchema,
    encoder: DenseEncoder,
    report: Callable[[int], None],
) -> NDArray[np.float32]:
    if schema.chunking == "separate":
        return encoder.encode(texts, progress=report)
    return np.concatenate(encoder.encode_chunks(*passages.whole(), progress=report))


def _write_dense(
    path: Path, passages: Passages, vectors: NDArray[np.float32], schema: CollectionSchema
) -> None:
    vector_of_row = None
    if schema.dense_coalescing is not None:
        vectors, vector_of_row = coalesce(vectors, passages.document_of_row, schema.dense_coalescing)
    write_dense(path / DENSE, vectors, schema.dense_precision, vector_of_row)


def _write_sparse(
    path: Path,
    texts: Sequence[str],
    schema: CollectionSchema,
    encoders: CollectionEncoders,
    report: Callable[[int], None],
) -> int:
    """Write the sparse vectors; return how many passages have none for want of quality."""
    encoder = encoders.sparse
    assert encoder is not None, "a sparse component needs an encoder"
    kept = _worthy(path, texts, schema, encoders.quality)
    report(int((~kept).sum()))
    made = encoder.encode([texts[row] for row in np.flatnonzero(kept).tolist()], progress=report)
    vectors = _spread(prune(made, schema.sparse_terms, schema.sparse_threshold), kept)
    pieces = encoder.pieces(texts) if schema.sparse_query != "encoder" else None
    write_sparse(path / SPARSE, vectors, encoder.ceiling, encoder.vocabulary, pieces)
    add_lists(path / SPARSE)
    return int((~kept).sum())


def _write_late(
    path: Path,
    texts: Sequence[str],
    schema: CollectionSchema,
    encoder: LateEncoder,
    report: Callable[[int], None],
) -> None:
    rows = token_rows(texts, schema, encoder, report)
    write_late(path / LATE, rows, encoder.dim, schema.late_precision, codebook(schema, encoder))


def _write_keys(
    path: Path, pairs: Sequence[tuple[str, str]], encoder: KeysEncoder, report: Callable[[int], None]
) -> None:
    """Write keys, of which is known beforehand how many they will be: reading passages takes minutes."""
    lengths = key_lengths(pairs, encoder)
    logger.info(
        "%s: keys of %d passages (of which %d are longer than is read), %d tokens, take %d bytes",
        path.name,
        len(pairs),
        lengths.cut,
        sum(lengths.tokens),
        key_bytes(lengths, encoder),
    )
    rows = key_rows_of(pairs, encoder, report)
    write_keys(path / KEYS, lengths.tokens, rows, key_centre(encoder))


def _worthy(path: Path, texts: Sequence[str], schema: CollectionSchema, scorer: Scorer | None) -> Mask:
    """Judge which passages get a sparse vector, and keep a record where any might not."""
    if scorer is None or schema.least_quality is None:
        return np.ones(len(texts), np.bool_)
    quality = scorer.scores(texts)
    kept: Mask = quality >= schema.least_quality
    write_quality(path / QUALITY, quality, ~kept)
    logger.info("%s: %d of %d passages are pruned", path.name, (~kept).sum(), len(kept))
    return kept


def _spread(vectors: Csr, rows: Mask) -> Csr:
    """Put the vectors into these rows and leave the others empty."""
    lengths = np.zeros(len(rows), np.int64)
    lengths[rows] = np.diff(vectors.offsets)
    return Csr(np.append(0, np.cumsum(lengths)), vectors.terms, vectors.weights)


def _counted(progress: Progress | None, total: int) -> Callable[[int], None]:
    """Tell `progress`, if there is one, the sum of what is reported."""
    done = 0

    def report(more: int) -> None:
        nonlocal done
        done += more
        if progress is not None:
            progress(done, total)

    return report
