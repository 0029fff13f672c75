"""The one writer of a collection: applies batches and merges, each as a new generation.

Everything is written under names that no generation refers to, brought to the disk, and then made current
by one rename. So whatever happens before the rename leaves the old generation, and what it left behind is
swept. After an error memory may be ahead of the disk: everything is read again before the next change.
"""

import logging
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from indexer.batch import Batch
from indexer.build import Progress, build_segment
from indexer.document import Document
from indexer.encoders import CollectionEncoders
from indexer.lock import Lock
from indexer.merge import Merge, plan
from indexer.part import Part, total
from indexer.queue.lease import Lease
from indexer.segment.analyzer import Analyzer
from indexer.segment.arrays import CorruptFile
from indexer.segment.durable import fsync_directory, fsync_file
from indexer.segment.manifest import FileEntry, LexicalEntry, Manifest, SegmentEntry, publish, read_current
from indexer.segment.tombstones import write_tombstones
from indexer.sweep import sweep
from indexer.text_index import TextIndex

logger = logging.getLogger(__name__)

KEPT_SECONDS = 120.0
"""How long the files of a superseded generation stay for those who read it."""


class Writer:
    """Holds the collection's lock, and the lease if there is one to take, until `close`.

    Not for several threads at once.

    Locked when there is another writer, CorruptFile or OSError when the generation cannot be opened.
    """

    def __init__(self, directory: Path, lease: Callable[[], Lease] | None = None) -> None:
        self.directory = directory
        self.name = directory.name
        self.lock = Lock(directory, lease)
        self._retired: deque[tuple[float, Manifest]] = deque()
        self._merge: Merge | None = None
        self._damaged: set[str] = set()
        self._text: TextIndex | None = None
        self._stale = True
        try:
            self._load()
        except BaseException:
            self.lock.release()
            raise

    def apply(self, batch: Batch, encoders: CollectionEncoders, progress: Progress | None = None) -> None:
        """Publish a generation with the batch applied. The encoders are needed for documents with vectors."""
        with self._changing():
            parts = [part.after(batch) for part in self._parts]
            fresh = self._build(batch.documents, encoders, progress)
            fingerprints = encoders.fingerprints() if fresh else {}
            self._publish(
                [*parts, *fresh],
                position=batch.position,
                next_seq=self.manifest.next_seq + sum(part.entry.rows for part in fresh),
                lexical=self._text_after(_newly_dead(self._parts, parts), fresh),
                fingerprints=self.manifest.fingerprints | fingerprints,
            )

    def plan_merge(self) -> Merge | None:
        """Choose segments to merge; None if all is well. The merge may run in any thread, one at a time."""
        window = None if self._stale else plan([part.entry for part in self._parts], self._damaged)
        self._merge = (
            Merge(f"{self.manifest.generation:06d}m", self._parts[slice(*window)]) if window else None
        )
        return self._merge

    def leave_alone(self, segment: str) -> None:
        """Plan no merge of this segment any more, as long as this writer lives."""
        self._damaged.add(segment)

    def take_in(self, merge: Merge, entry: SegmentEntry | None) -> None:
        """Publish a generation in which a finished merge stands for what it merged."""
        with self._changing():
            current = {part.entry.name: part for part in self._parts}
            merged = {part.entry.name for part in merge.parts} & current.keys()
            place = next((at for at, part in enumerate(self._parts) if part.entry.name in merged), None)
            rest = [part for part in self._parts if part.entry.name not in merged]
            if entry is not None and place is not None:
                part = replace(Part.open(self.directory, entry), dead=merge.dead_since(current))
                rest.insert(place, part)
            self._publish(rest)

    def expire(self) -> None:
        """Remove the files of generations superseded long enough ago."""
        now = time.monotonic()
        expired = [until for until, _ in self._retired if until <= now]
        if expired and not self._stale:
            for _ in expired:
                self._retired.popleft()
            self._sweep()

    def close(self) -> None:
        """Let the next writer in."""
        self._close_text()
        self.lock.release()

    @contextmanager
    def _changing(self) -> Iterator[None]:
        if self._stale:
            self._load()
        self._stale = True
        try:
            yield
        except OSError:
            self._recover()
            raise
        self._stale = False

    def _recover(self) -> None:
        """Sweep what was half written, if that is possible: on a full disk others need the room."""
        if self.lock.stands():  # or else there may be another collection of its name by now
            with suppress(OSError, CorruptFile):
                self._load()

    def _load(self) -> None:
        self._stale = True
        self._close_text()
        self.manifest = read_current(self.directory)
        self._parts = [Part.open(self.directory, entry) for entry in self.manifest.segments]
        self._analyzer = Analyzer(self.manifest.schema_.language)
        self._sweep()
        self._stale = False

    def _sweep(self) -> None:
        kept = [self.manifest, *(manifest for _, manifest in self._retired)]
        sweep(self.directory, kept, [self._merge.name] if self._merge else [])

    def _build(
        self, documents: Sequence[Document], encoders: CollectionEncoders, progress: Progress | None
    ) -> list[Part]:
        if not documents:
            return []
        entry = build_segment(
            self.directory,
            f"{self.manifest.generation + 1:06d}",
            documents,
            self.manifest.next_seq,
            self.manifest.schema_,
            encoders,
            self._analyzer,
            progress,
        )
        return [Part.open(self.directory, entry)]

    def _text_after(self, gone: NDArray[np.int64], fresh: Sequence[Part]) -> LexicalEntry | None:
        published = self.manifest.lexical
        if "bm25" not in self.manifest.schema_.components or not (len(gone) or fresh):
            return published
        if self._text is None:
            self._text = TextIndex(self.directory, published, self._analyzer)
        return self._text.change(self.manifest.generation + 1, gone, fresh)

    def _close_text(self) -> None:
        if self._text is not None:
            self._text.close()
            self._text = None

    def _publish(self, parts: Sequence[Part], **changes: Any) -> None:
        kept = [self._with_tombstones(part) for part in parts if part.alive_rows]
        entries = tuple(part.entry for part in kept)
        manifest = self.manifest.successor(segments=entries, statistics=total(kept), **changes)
        self.lock.require()
        publish(self.directory, manifest)
        self._retired.append((time.monotonic() + KEPT_SECONDS, self.manifest))
        self.manifest, self._parts = manifest, kept
        _log(self.name, manifest)

    def _with_tombstones(self, part: Part) -> Part:
        """Write which rows are dead, if the part's entry does not say it already."""
        dead = part.entry.rows - part.alive_rows
        if dead == part.entry.dead_rows:
            return part
        name = f"{part.entry.name}-{self.manifest.generation + 1:06d}"
        path = self.directory / "tombstones" / name
        write_tombstones(path, part.dead)
        fsync_file(path)
        fsync_directory(path.parent)
        changes = {"dead_rows": dead, "tombstones": name, "tombstones_entry": FileEntry.of(path)}
        return replace(part, entry=part.entry.model_copy(update=changes))


def _newly_dead(before: Sequence[Part], after: Sequence[Part]) -> NDArray[np.int64]:
    """Return the passage numbers that died between the two."""
    gone = [
        new.segment.store.seqs[new.dead & ~old.dead]
        for old, new in zip(before, after, strict=True)
        if new is not old
    ]
    return np.concatenate([*gone, np.empty(0, np.int64)])


def _log(name: str, manifest: Manifest) -> None:
    logger.info(
        "%s: generation %d: %d documents, %d passages, %d segments, log position %d",
        name,
        manifest.generation,
        manifest.statistics.documents,
        manifest.statistics.passages,
        len(manifest.segments),
        manifest.position,
    )
