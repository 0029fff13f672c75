"""Keeps segments few: neighbours become one, dead rows are left out, nothing is encoded again.

Only neighbours are merged, so that each segment keeps a range of passage numbers of its own. Six neighbours
none of which is larger than the others together are worth a merge: each row is then copied about as often as
the logarithm of the collection's size. Above ten segments the cheapest merge is made whatever its shape.
Simulated over 20,000 equal batches, a row is copied nine times and there are eight segments on average.
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from indexer.build import fresh_directory, seal
from indexer.part import Mask, Part
from indexer.segment.arrays import CorruptFile
from indexer.segment.columns import merge_columns
from indexer.segment.dense import merge_dense
from indexer.segment.keys import merge_keys
from indexer.segment.late import merge_late
from indexer.segment.lexical import merge_lexical
from indexer.segment.lists import add_lists
from indexer.segment.manifest import SegmentEntry, verify_files
from indexer.segment.quality import merge_quality
from indexer.segment.segment import COLUMNS, DENSE, DOCUMENTS, KEYS, LATE, LEXICAL, QUALITY, SPARSE, STORE
from indexer.segment.sparse import merge_sparse
from indexer.segment.store import merge_store

MOST_SEGMENTS = 10
WORTHWHILE = 6
SMALLEST = 1000
"""Segments of fewer live rows count as so many: what a merge costs besides its rows."""

Window = tuple[int, int]


class DamagedSegment(CorruptFile):
    """`segment` is not what was written, so it must not become part of another."""

    def __init__(self, segment: str, why: CorruptFile) -> None:
        super().__init__(f"segment {segment} is damaged and is left as it is: {why}")
        self.segment = segment


@dataclass(frozen=True, eq=False)
class Merge:
    """Some neighbours as they were when the merge was planned, to become the segment `name`."""

    name: str
    parts: Sequence[Part]

    def run(self, directory: Path) -> SegmentEntry | None:
        """Write the merged segment and bring it to the disk; None if no row is alive. For any thread.

        DamagedSegment before anything is written if a byte has changed since its checksum was made: a copy
        would have a new checksum that vouches for it.
        """
        for part in self.parts:
            _verify(part)
        kept = [(part.segment, ~part.dead) for part in self.parts if part.alive_rows]
        if not kept:
            return None
        path = fresh_directory(directory, self.name)
        merge_store(path / STORE, [(segment.store, keep) for segment, keep in kept])
        merge_columns(path / COLUMNS, [(segment.columns, keep) for segment, keep in kept])
        if lexical := [(segment.lexical, keep) for segment, keep in kept if segment.lexical is not None]:
            merge_lexical(path / LEXICAL, lexical)
        if whole := [
            (segment.document_lexical, segment.by_document(keep))
            for segment, keep in kept
            if segment.document_lexical is not None
        ]:
            merge_lexical(path / DOCUMENTS, whole)
        if dense := [(segment.dense, keep) for segment, keep in kept if segment.dense is not None]:
            merge_dense(path / DENSE, dense)
        if sparse := [(segment.sparse, keep) for segment, keep in kept if segment.sparse is not None]:
            merge_sparse(path / SPARSE, sparse)
            add_lists(path / SPARSE)
        if late := [(segment.late, keep) for segment, keep in kept if segment.late is not None]:
            merge_late(path / LATE, late)
        if keys := [(segment.keys, keep) for segment, keep in kept if segment.keys is not None]:
            merge_keys(path / KEYS, keys)
        if quality := [(segment.quality, keep) for segment, keep in kept if segment.quality is not None]:
            merge_quality(path / QUALITY, quality)
        return self._seal(path)

    def dead_since(self, current: Mapping[str, Part]) -> Mask:
        """Return which rows of the merged segment have died since, by the parts as they are now.

        A part that is not there any more has died altogether.
        """
        return np.concatenate(
            [
                current[part.entry.name].dead[~part.dead]
                if part.entry.name in current
                else np.ones(part.alive_rows, np.bool_)
                for part in self.parts
            ]
        )

    def _seal(self, path: Path) -> SegmentEntry:
        seqs = np.concatenate([part.segment.store.seqs[~part.dead] for part in self.parts])
        documents = sum(part.statistics.documents for part in self.parts)
        pruned = sum(part.alive_pruned for part in self.parts)
        return seal(path, len(seqs), documents, int(seqs[0]), int(seqs[-1]), pruned)


def plan(entries: Sequence[SegmentEntry], damaged: Collection[str] = ()) -> Window | None:
    """Choose the segments [begin, end) that should become one, no damaged one; None if all is well."""
    sizes = [max(SMALLEST, entry.rows - entry.dead_rows) for entry in entries]
    whole = [entry.name not in damaged for entry in entries]
    windows = [window for window in _windows(len(entries)) if all(whole[slice(*window)])]
    balanced = _cheapest(
        sizes, windows, lambda window: len(window) >= WORTHWHILE and 2 * max(window) <= sum(window)
    )
    if balanced is not None:
        return balanced
    if len(entries) > MOST_SEGMENTS:
        return _cheapest(sizes, windows, lambda window: True)
    mostly_dead = (at for at, each in enumerate(entries) if 2 * each.dead_rows > each.rows and whole[at])
    return next(((at, at + 1) for at in mostly_dead), None)


def _cheapest(
    sizes: Sequence[int], windows: Sequence[Window], suits: Callable[[Sequence[int]], bool]
) -> Window | None:
    """Choose among windows of two or more by rows to copy per segment saved."""
    suitable = [window for window in windows if suits(sizes[slice(*window)])]
    return min(
        suitable, key=lambda each: (sum(sizes[slice(*each)]) / (each[1] - each[0] - 1), each), default=None
    )


def _windows(count: int) -> Iterator[Window]:
    return ((begin, end) for begin in range(count) for end in range(begin + 2, count + 1))


def _verify(part: Part) -> None:
    try:
        verify_files(part.segment.path, part.entry.files)
    except CorruptFile as error:
        raise DamagedSegment(part.entry.name, error) from error
