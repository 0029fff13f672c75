"""Takes operations from a collection's log to its writer: gathers, notes trials, finds the bad ones, merges.

One step is one batch or one merge. What hinders the whole collection (a full disk, a missing model) is
raised and leaves every operation queued; what one operation causes is tried again in smaller batches, until
that operation is a dead letter and the others are applied.
"""

import logging
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, Future
from dataclasses import dataclass
from pathlib import Path

from indexer.batch import Batch, cut, resolve
from indexer.encoders import CollectionEncoders, Encoders
from indexer.lock import Locked
from indexer.merge import DamagedSegment, Merge
from indexer.observer import Observer
from indexer.queue.contract import Entry, Log, Trial
from indexer.queue.logs import Logs
from indexer.segment.arrays import CorruptFile
from indexer.segment.manifest import SegmentEntry
from indexer.trial import begin, failed, succeeded
from indexer.writer import Writer

logger = logging.getLogger(__name__)

GATHER_SECONDS = 0.05
LONGEST_GATHER = 0.2
REPORT_SECONDS = 0.25
MERGE_PAUSE = 60.0

HINDRANCES = (OSError, CorruptFile, Locked)
DIED = "the indexer died while it applied this operation"

Listener = Callable[[int], None]
"""Hears how many operations of the batch under way are done."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Of one batch; a single operation may exceed the bytes."""

    operations: int
    bytes: int


ENCODED = Limits(512, 4 << 20)
"""Where encoding takes longer than publishing: some ten seconds' work, so that progress can be seen."""

PLAIN = Limits(4096, 16 << 20)
"""Where it is the other way round."""


class Feeder:
    """One collection's log and writer, locked from the beginning. `merging` runs merges aside; `observer`
    hears what was done.

    Locked, CorruptFile or OSError when the collection cannot be opened.
    """

    def __init__(
        self,
        directory: Path,
        logs: Logs,
        encoders: Encoders,
        merging: Executor,
        observer: Observer | None = None,
    ) -> None:
        self._observer = observer or Observer()
        self.writer = Writer(directory, logs.lease(directory))
        try:
            self.log = _open_log(logs, directory, self.writer.manifest.position)
            self._suspicion = failed(self.log.trial())
        except BaseException:
            self.writer.close()
            raise
        self._limits = ENCODED if self.writer.manifest.schema_.encoders() else PLAIN
        self._encoders = encoders
        self._executor = merging
        self._merging: tuple[Merge, Future[SegmentEntry | None]] | None = None
        self._merge_began = 0.0
        self._trial: Trial | None = None
        self._planned = -1  # the generation for which a merge was last considered
        self._next_merge = 0.0
        self._error = DIED
        self._settled = self.writer.manifest.position  # what the log knows to be applied

    def step(self, listener: Listener | None = None) -> bool:
        """Apply a batch or take in a merge; False if there was nothing to do."""
        worked = self._take_in_merge() or self._apply(listener)
        self._start_merge()
        self.writer.expire()
        return worked

    def finish_merge(self) -> bool:
        """Wait for the merge under way and take it in; False if there is none."""
        if self._merging is not None:
            self._merging[1].exception()
        return self._take_in_merge()

    @property
    def merging(self) -> bool:
        """Whether a merge is under way."""
        return self._merging is not None

    def excuse(self) -> None:
        """Clear the operations under way of suspicion: the process ends for another reason."""
        if self._trial is not None:
            self.log.begin(None)

    def close(self) -> None:
        """Let go of the collection, once a merge under way has ended."""
        if self._merging is not None:
            self._merging[1].exception()
        self.writer.close()
        self.log.close()

    def _apply(self, listener: Listener | None) -> bool:
        newest, position = self.log.last_position(), self.writer.manifest.position
        if self._settled < position:  # the log could not be written just then
            self._settle(position)
        if newest <= position:
            return False
        most = self._suspicion.most if self._suspicion else self._limits.operations
        _gather(self.log, newest, position + most)
        entries = cut(self.log.read(position, most, self._limits.bytes))
        if not entries:  # all up to the newest are dead letters
            self.writer.apply(Batch(newest), CollectionEncoders())
            self._settle(newest)
        elif self._suspicion is not None and self._suspicion.proven:
            self._bury(entries[0].position, self._suspicion.tries)
        else:
            self._try(entries, listener)
        return True

    def _try(self, entries: Sequence[Entry], listener: Listener | None) -> None:
        encoders = self._encoders_for(entries)
        self._trial = begin(entries[-1].position, len(entries), self._suspicion)
        self.log.begin(self._trial)
        began, first = time.monotonic(), self.writer.manifest.next_seq
        try:
            batch = resolve(entries)
            self.writer.apply(batch, encoders, _Encoded(self.log, entries, listener))
        except (*HINDRANCES, KeyboardInterrupt):
            self.log.begin(None)
            raise
        except Exception as error:  # whatever one operation brings about, the others go on
            logger.exception("%s: a batch of %d operations failed", self.writer.name, len(entries))
            self._observer.failed(self.writer.name)
            self._error = f"{type(error).__name__}: {error}"
            self._suspicion = failed(self._trial)
        else:
            passages, seconds = self.writer.manifest.next_seq - first, time.monotonic() - began
            documents = len(batch.documents)
            self._observer.applied(self.writer.name, len(entries), documents, passages, seconds)
            self._settle(batch.position)
        finally:
            self._trial = None

    def _settle(self, position: int) -> None:
        self.log.prune(position)
        self._settled = position
        self._suspicion = succeeded(position, self._suspicion)

    def _bury(self, position: int, tries: int) -> None:
        logger.error("%s: operation %d is given up: %s", self.writer.name, position, self._error)
        self.log.bury(position, self._error, tries)
        self.log.begin(None)
        self._observer.buried(self.writer.name)
        self._suspicion, self._error = None, DIED

    def _encoders_for(self, entries: Sequence[Entry]) -> CollectionEncoders:
        if not any(entry.operation.kind == "upsert" for entry in entries):
            return CollectionEncoders()
        manifest = self.writer.manifest
        return self._encoders.of(manifest.schema_, manifest.fingerprints)

    def _start_merge(self) -> None:
        generation = self.writer.manifest.generation
        if self._merging is None and generation != self._planned and time.monotonic() >= self._next_merge:
            self._planned = generation
            merge = self.writer.plan_merge()
            if merge is not None:
                self._merge_began = time.monotonic()
                self._merging = merge, self._executor.submit(merge.run, self.writer.directory)

    def _take_in_merge(self) -> bool:
        if self._merging is None or not self._merging[1].done():
            return False
        (merge, future), self._merging = self._merging, None
        error = future.exception()
        if error is None:
            self.writer.take_in(merge, future.result())
            self._observer.merged(self.writer.name, time.monotonic() - self._merge_began)
        else:
            logger.error("%s: a merge failed, searches go on without it", self.writer.name, exc_info=error)
            if isinstance(error, DamagedSegment):
                self.writer.leave_alone(error.segment)
            self._observer.merge_failed(self.writer.name)
            self._planned, self._next_merge = -1, time.monotonic() + MERGE_PAUSE
        return True


class _Encoded:
    """Says how far a batch is, in operations: to the log per job a few times a second, and to a listener."""

    def __init__(self, log: Log, entries: Sequence[Entry], listener: Listener | None) -> None:
        self._log = log
        self._jobs = Counter(entry.job for entry in entries)
        self._operations = len(entries)
        self._listener = listener
        self._report(0, 1)

    def __call__(self, done: int, total: int) -> None:
        """Hear that so many encodings of so many are made."""
        if self._listener is not None:
            self._listener(self._operations * done // total)
        if time.monotonic() >= self._next:
            self._report(done, total)

    def _report(self, done: int, total: int) -> None:
        self._next = time.monotonic() + REPORT_SECONDS
        self._log.report_encoded({job: count * done // total for job, count in self._jobs.items()})


def _open_log(logs: Logs, directory: Path, applied: int) -> Log:
    log = logs.open(directory, applied)
    end = log.last_position()
    if end < applied:
        log.close()
        raise CorruptFile(
            f"{log.place}: the log ends at operation {end}, but the index has applied {applied}: put the log "
            "back that belongs to this index, or index the documents into a new collection"
        )
    log.prune(applied)
    log.report_problem(None)
    return log


def _gather(log: Log, newest: int, enough: int) -> None:
    """Wait a moment for more small writes, as long as they keep coming."""
    end = time.monotonic() + LONGEST_GATHER
    while newest < enough and time.monotonic() < end:
        time.sleep(GATHER_SECONDS)
        seen, newest = newest, log.last_position()
        if seen == newest:
            return
