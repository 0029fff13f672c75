"""One generation of a collection, opened for reading.

A snapshot never changes: a search holds the one it began with, whatever is published meanwhile. Segments
are immutable, so the next snapshot shares those that both name. tantivy's part is opened when first needed
and let go when the snapshot is superseded, since every open one keeps a thread.

A segment that is not what was written is left out: `damaged` says why, and searches go on over the others.
Scores then count, beside what is there, the documents that are missing.
"""

import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray

from indexer.segment.analyzer import Analyzer
from indexer.segment.arrays import CorruptFile
from indexer.segment.dense import Dense
from indexer.segment.fulltext import Fulltext
from indexer.segment.integrity import FULLTEXT, segment_piece
from indexer.segment.keys import Keys
from indexer.segment.late import Late
from indexer.segment.lexical import Lexical, idf
from indexer.segment.manifest import CollectionSchema, Manifest, SegmentEntry, Statistics
from indexer.segment.segment import Segment, open_segment
from indexer.segment.sparse import Sparse
from indexer.segment.tombstones import dead_rows
from service.errors import DamagedError, UnavailableError

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
    """A generation: its manifest and the parts it names, in order of passage numbers.

    `damaged` names what is left out of it, in the words of `indexer.segment.integrity`, and says why.
    """

    directory: Path
    manifest: Manifest
    parts: tuple[Part, ...]
    analyzer: Analyzer
    _fulltext: "_Lazy" = field(repr=False)
    damaged: Mapping[str, str] = field(default_factory=dict)
    _frequencies: dict[tuple[Unit, str], int] = field(default_factory=dict, repr=False)

    @classmethod
    def open(cls, directory: Path, manifest: Manifest, known: Self | None = None) -> Self:
        """Open what `manifest` names; parts and segments of `known` are shared. OSError.

        Left out is what cannot be opened, and what `known` has left out.
        """
        parts, damaged = _open_parts(directory, manifest, known)
        analyzer = known.analyzer if known is not None else Analyzer(manifest.schema_.language)
        return cls(directory, manifest, parts, analyzer, _Lazy(directory, manifest, analyzer), damaged)

    def without(self, piece: str, why: str) -> Self:
        """The same generation with a piece left out."""
        parts = tuple(part for part in self.parts if segment_piece(part.entry) != piece)
        return replace(self, parts=parts, damaged={**self.damaged, piece: why}, _frequencies={})

    def again(self, piece: str) -> Self:
        """The same generation with a piece opened that was left out, if it can be now. OSError."""
        others = {name: why for name, why in self.damaged.items() if name != piece}
        return type(self).open(self.directory, self.manifest, replace(self, damaged=others))

    @property
    def generation(self) -> int:
        """Number of the generation."""
        return self.manifest.generation

    @cached_property
    def digest(self) -> str:
        """Differs between any two snapshots of different content, whatever they are called and wherever they
        lie: the manifest names every file with its checksum, and when it was made.
        """
        return sha256(self.manifest.model_dump_json(by_alias=True).encode()).hexdigest()

    @property
    def missing(self) -> list[str]:
        """A sentence for each segment that is left out."""
        name = self.directory.name
        return [
            f"collection {name}, {piece} is left out: {why}"
            for piece, why in self.damaged.items()
            if piece != FULLTEXT
        ]

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
        """Return tantivy's index of this generation; None before the first document. DamagedError."""
        if FULLTEXT in self.damaged:
            raise DamagedError(f"{FULLTEXT} is damaged: {self.damaged[FULLTEXT]}")
        return self._fulltext.get()

    def superseded(self) -> None:
        """Let go of what can be opened again; searches that hold it keep it until they end."""
        self._fulltext.forget()

    @cached_property
    def _ranges(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """First and last passage of every part."""
        ranges = np.array([(part.entry.first_seq, part.entry.last_seq) for part in self.parts], np.int64)
        firsts, lasts = ranges.reshape(-1, 2).T
        return firsts.copy(), lasts.copy()

    def holds(self, seqs: NDArray[np.int64]) -> Mask:
        """Which of these passages are in its parts: tantivy also finds those of a segment left out."""
        firsts, lasts = self._ranges
        numbers = np.searchsorted(firsts, seqs, side="right") - 1
        inside: Mask = numbers >= 0
        inside[inside] = seqs[inside] <= lasts[numbers[inside]]
        return inside

    def locate(self, seqs: NDArray[np.int64]) -> tuple[NDArray[np.intp], NDArray[np.int64]]:
        """Part and row of every passage; all must be in this snapshot."""
        numbers = np.searchsorted(self._ranges[0], seqs, side="right") - 1
        rows = np.empty(len(seqs), np.int64)
        for part, inside in self._by_part(numbers):
            rows[inside] = part.segment.store.rows_at(seqs[inside])
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
        if len(self.parts) == 1:
            yield self.parts[0], np.arange(len(numbers))
            return
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
        """Return the live document of this id; None if there is none in its parts."""
        for part in reversed(self.parts):
            number = int(part.segment.store.find([document_id])[0])
            if number >= 0 and (part.alive is None or part.alive[part.segment.store.rows_of(number).start]):
                return part.segment.store.document(number)
        return None


def _open_parts(
    directory: Path, manifest: Manifest, known: Snapshot | None
) -> tuple[tuple[Part, ...], dict[str, str]]:
    """The parts that are whole, and why the others are not."""
    names = {FULLTEXT, *map(segment_piece, manifest.segments)}
    damaged = {name: why for name, why in (known.damaged if known else {}).items() if name in names}
    parts = []
    for entry in manifest.segments:
        if segment_piece(entry) in damaged:
            continue
        try:
            parts.append(_open_part(directory, entry, known))
        except CorruptFile as error:
            damaged[segment_piece(entry)] = str(error)
    return tuple(parts), damaged


def _open_part(directory: Path, entry: SegmentEntry, known: Snapshot | None) -> Part:
    before: Mapping[str, Part] = {} if known is None else {part.entry.name: part for part in known.parts}
    same = before.get(entry.name)
    if same is not None and same.entry.tombstones == entry.tombstones:
        return same
    segment = same.segment if same is not None else open_segment(directory / "segments" / entry.name, entry)
    dead = dead_rows(directory, entry)
    return Part(entry, segment, None if dead is None else ~dead, dead)


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
