"""One generation of a collection, opened for reading.

A snapshot never changes: a search holds the one it began with, whatever is published meanwhile. Segments
are immutable, so the next snapshot shares those that both name. tantivy's part is opened when first needed
and let go when the snapshot is superseded, since every open one keeps a thread.
"""

import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray

from indexer.segment.analyzer import Analyzer
from indexer.segment.dense import Dense
from indexer.segment.fulltext import Fulltext
from indexer.segment.keys import Keys
from indexer.segment.late import Late
from indexer.segment.lexical import Lexical, idf
from indexer.segment.manifest import CollectionSchema, Manifest, SegmentEntry, Statistics
from indexer.segment.segment import Segment, open_segment
from indexer.segment.sparse import Sparse
from indexer.segment.tombstones import read_tombstones
from service.errors import UnavailableError

Mask = NDArray[np.bool_]
Unit = Literal["passage", "document"]  # what bm25 scores

MOST_FREQUENCIES = 100_000


@dataclass(frozen=True, eq=False)
class Part:
    """A segment in one generation: `alive` and `dead` are masks over its rows, None while every row lives."""

    entry: SegmentEntry
    segment: Segment
    alive: Mask | None
    dead: Mask | None

    @property
    def lexical(self) -> Lexical:
        """The postings; only for a collection that has them, as was checked before the search began."""
        assert self.segment.lexical is not None, "the collection has no bm25"
        return self.segment.lexical

    def lexical_of(self, unit: Unit) -> Lexical:
        """The postings of passages or of whole documents; only for a collection that has them."""
        if unit == "passage":
            return self.lexical
        assert self.segment.document_lexical is not None, "the collection has no bm25 of documents"
        return self.segment.document_lexical

    def mask_of(self, unit: Unit, rows: Mask | None) -> Mask | None:
        """Make a mask over passages one over the rows of `lexical_of(unit)`."""
        return rows if rows is None or unit == "passage" else self.segment.by_document(rows)

    @property
    def dense(self) -> Dense:
        """The vectors; only for a collection that has them."""
        assert self.segment.dense is not None, "the collection has no dense"
        return self.segment.dense

    @property
    def sparse(self) -> Sparse:
        """The sparse vectors; only for a collection that has them."""
        assert self.segment.sparse is not None, "the collection has no sparse"
        return self.segment.sparse

    @property
    def late(self) -> Late:
        """The token vectors; only for a collection that has them."""
        assert self.segment.late is not None, "the collection has no late interaction"
        return self.segment.late

    @property
    def keys(self) -> Keys:
        """The keys of passages in a language model; only for a collection that has them."""
        assert self.segment.keys is not None, "the collection has no keys"
        return self.segment.keys

    @cached_property
    def piece_frequencies(self) -> NDArray[np.int64]:
        """Live passages that say each vocabulary entry; only where questions are weighed by idf."""
        return self.sparse.piece_frequencies(self.dead)


@dataclass(frozen=True, eq=False)
class Snapshot:
    """A generation: its manifest and the parts it names, in order of passage numbers."""

    directory: Path
    manifest: Manifest
    parts: tuple[Part, ...]
    analyzer: Analyzer
    _fulltext: "_Lazy" = field(repr=False)
    _frequencies: dict[tuple[Unit, str], int] = field(default_factory=dict, repr=False)

    @classmethod
    def open(cls, directory: Path, manifest: Manifest, known: Self | None = None) -> Self:
        """Open what `manifest` names; parts and segments of `known` are shared. CorruptFile, OSError."""
        parts = tuple(_open_part(directory, entry, known) for entry in manifest.segments)
        analyzer = known.analyzer if known is not None else Analyzer(manifest.schema_.language)
        return cls(directory, manifest, parts, analyzer, _Lazy(directory, manifest, analyzer))

    @property
    def generation(self) -> int:
        """Number of the generation."""
        return self.manifest.generation

    @property
    def schema(self) -> CollectionSchema:
        """How the collection is indexed."""
        return self.manifest.schema_

    @property
    def statistics(self) -> Statistics:
        """Counts of what is alive."""
        return self.manifest.statistics

    @cached_property
    def piece_idf(self) -> NDArray[np.float32]:
        """Idf of vocabulary entries among the live passages; only where questions are weighed by it."""
        frequencies = np.sum([part.piece_frequencies for part in self.parts], axis=0)
        return idf(self.statistics.passages, frequencies).astype(np.float32)

    def fulltext(self) -> Fulltext | None:
        """Return tantivy's index of this generation; None before the first document."""
        return self._fulltext.get()

    def superseded(self) -> None:
        """Let go of what can be opened again; searches that hold it keep it until they end."""
        self._fulltext.forget()

    def locate(self, seqs: NDArray[np.int64]) -> tuple[NDArray[np.intp], NDArray[np.int64]]:
        """Part and row of every passage; all must be in this snapshot."""
        first_seqs = np.array([part.entry.first_seq for part in self.parts], np.int64)
        numbers = np.searchsorted(first_seqs, seqs, side="right") - 1
        rows = np.empty(len(seqs), np.int64)
        for part, inside in self._by_part(numbers):
            rows[inside] = np.searchsorted(part.segment.store.seqs, seqs[inside])
        return numbers, rows

    def document_keys(self, seqs: NDArray[np.int64]) -> NDArray[np.int64]:
        """A number for each passage that is the same for passages of the same document."""
        numbers, rows = self.locate(seqs)
        documents = np.empty(len(seqs), np.int64)
        for part, inside in self._by_part(numbers):
            documents[inside] = part.segment.store.document_of_row[rows[inside]]
        return (numbers.astype(np.int64) << 32) | documents

    def _by_part(self, numbers: NDArray[np.intp]) -> Iterator[tuple[Part, NDArray[np.intp]]]:
        """Every part that is among `numbers`, and where."""
        order = np.argsort(numbers, kind="stable")
        bounds = np.searchsorted(numbers[order], np.arange(len(self.parts) + 1))
        for part, begin, end in zip(self.parts, bounds[:-1].tolist(), bounds[1:].tolist(), strict=True):
            if begin < end:
                yield part, order[begin:end]

    def document_frequencies(self, terms: Sequence[str], unit: Unit = "passage") -> NDArray[np.int64]:
        """Live passages, or documents, that hold each term.

        Counted once, since dead rows mean reading whole lists.
        """
        found = {(unit, term): self._frequencies.get((unit, term), -1) for term in terms}
        unknown = [term for (_, term), frequency in found.items() if frequency < 0]
        if unknown:
            counts = self._count(unknown, unit).tolist()
            found.update(((unit, term), count) for term, count in zip(unknown, counts, strict=True))
            if len(self._frequencies) > MOST_FREQUENCIES:
                self._frequencies.clear()
            self._frequencies.update(found)
        return np.array([found[unit, term] for term in terms], np.int64)

    def _count(self, terms: Sequence[str], unit: Unit) -> NDArray[np.int64]:
        counts = np.zeros(len(terms), np.int64)
        for part in self.parts:
            lexical = part.lexical_of(unit)
            counts += lexical.live_df(lexical.lookup(terms), part.mask_of(unit, part.dead))
        return counts

    def find(self, document_id: str) -> dict[str, Any] | None:
        """Return the live document of this id."""
        for part in reversed(self.parts):
            number = int(part.segment.store.find([document_id])[0])
            if number >= 0 and (part.alive is None or part.alive[part.segment.store.rows_of(number).start]):
                return part.segment.store.document(number)
        return None


def _open_part(directory: Path, entry: SegmentEntry, known: Snapshot | None) -> Part:
    before: Mapping[str, Part] = {} if known is None else {part.entry.name: part for part in known.parts}
    same = before.get(entry.name)
    if same is not None and same.entry.tombstones == entry.tombstones:
        return same
    segment = same.segment if same is not None else open_segment(directory / "segments" / entry.name, entry)
    if entry.tombstones is None:
        return Part(entry, segment, None, None)
    dead = read_tombstones(directory / "tombstones" / entry.tombstones, entry.rows)
    return Part(entry, segment, ~dead, dead)


class _Lazy:
    """tantivy's index of a generation, opened by whoever needs it first."""

    def __init__(self, directory: Path, manifest: Manifest, analyzer: Analyzer) -> None:
        self._directory = directory
        self._manifest = manifest
        self._analyzer = analyzer
        self._lock = threading.Lock()
        self._opened: Fulltext | None = None

    def get(self) -> Fulltext | None:
        lexical = self._manifest.lexical
        if lexical is None:
            return None
        with self._lock:
            if self._opened is None:
                self._opened = self._open(self._directory / lexical.directory)
            return self._opened

    def _open(self, path: Path) -> Fulltext:
        try:
            return Fulltext(path, self._analyzer, self._manifest.schema_.title_boost)
        except ValueError as error:
            if path.exists():
                raise
            raise UnavailableError(
                "the collection was replaced or dropped a moment ago: ask again", retry_after=1.0
            ) from error

    def forget(self) -> None:
        with self._lock:
            self._opened = None
