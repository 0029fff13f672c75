"""A segment in one generation: what is written once, and which of its rows are dead by now."""

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from indexer.batch import Batch
from indexer.segment.lexical import Lexical
from indexer.segment.manifest import SegmentEntry, Statistics
from indexer.segment.segment import Segment, open_segment
from indexer.segment.tombstones import dead_rows

Mask = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Part:
    """`dead` is a mask over the rows of `segment`; `entry` knows those of the generation published last."""

    entry: SegmentEntry
    segment: Segment
    dead: Mask

    @classmethod
    def open(cls, directory: Path, entry: SegmentEntry) -> Self:
        """Open a segment of the collection in `directory` with its tombstones. CorruptFile, OSError."""
        segment = open_segment(directory / "segments" / entry.name, entry)
        dead = dead_rows(directory, entry)
        return cls(entry, segment, np.zeros(entry.rows, np.bool_) if dead is None else dead)

    @property
    def alive_rows(self) -> int:
        """How many rows are alive."""
        return self.statistics.passages

    @property
    def alive_pruned(self) -> int:
        """How many rows that are alive have no sparse vector for want of quality."""
        quality = self.segment.quality
        return 0 if quality is None else int((quality.pruned & ~self.dead).sum())

    @cached_property
    def statistics(self) -> Statistics:
        """Counts of what is alive."""
        alive, documents = ~self.dead, ~self.segment.by_document(self.dead)
        body_terms, title_terms = _terms(self.segment.lexical, alive)
        document_body_terms, document_title_terms = _terms(self.segment.document_lexical, documents)
        return Statistics(
            documents=int(documents.sum()),
            passages=int(alive.sum()),
            body_terms=body_terms,
            title_terms=title_terms,
            document_body_terms=document_body_terms,
            document_title_terms=document_title_terms,
        )

    def after(self, batch: Batch) -> Self:
        """Return this part without the documents that the batch deletes or replaces."""
        gone = self._of(batch) & ~self.dead
        return replace(self, dead=self.dead | gone) if gone.any() else self

    def _of(self, batch: Batch) -> Mask:
        store = self.segment.store
        numbers = store.find(batch.ids)
        documents = np.zeros(store.documents, np.bool_)
        documents[numbers[numbers >= 0]] = True
        mask = documents[store.document_of_row]
        for each in batch.filters:
            mask |= each.mask(self.segment.columns, store.rows)
        return mask


def total(parts: list[Part]) -> Statistics:
    """Add the statistics of parts up."""
    return Statistics(
        documents=sum(part.statistics.documents for part in parts),
        passages=sum(part.statistics.passages for part in parts),
        body_terms=sum(part.statistics.body_terms for part in parts),
        title_terms=sum(part.statistics.title_terms for part in parts),
        document_body_terms=sum(part.statistics.document_body_terms for part in parts),
        document_title_terms=sum(part.statistics.document_title_terms for part in parts),
    )


def _terms(lexical: Lexical | None, alive: Mask) -> tuple[int, int]:
    """How many terms the bodies and the titles of the rows that are alive have."""
    if lexical is None:
        return 0, 0
    lengths = lexical.body_lengths, lexical.title_lengths
    body, title = (int(each[alive].sum(dtype=np.int64)) for each in lengths)
    return body, title
