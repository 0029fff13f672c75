"""The indexer: applies what is queued for every collection of a data directory, one batch each in turn.

It runs as a process of its own, since encoding would stall a service, and may be killed at any moment: what
was acknowledged is in the logs, and what is published is on the disk. One worker has a collection at a time.
A collection that cannot be worked on is reported and tried again later; the others go on.
"""

import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path

from indexer.collection import collection_path, list_collections, remove_dropped, sweep_collections
from indexer.encoders import Encoders
from indexer.feeder import Feeder
from indexer.lock import Locked, wanted
from indexer.observer import Observer
from indexer.queue.contract import LogUnavailable
from indexer.queue.logs import Logs
from indexer.segment.arrays import CorruptFile
from indexer.sharing import Alone, Sharing
from models.roles import Load, loader

logger = logging.getLogger(__name__)

POLL_SECONDS = 0.05
SHORTEST_PAUSE, LONGEST_PAUSE = 0.25, 30.0
SHARED_PAUSE = 0.5
"""How long a collection is left to the other workers that share it."""
NICENESS = 5

DrainProgress = Callable[[int, int], None]
"""Hears how many operations of how many are applied, or encoded and about to be."""


@dataclass(frozen=True, slots=True)
class Pause:
    """Why a collection is left alone, and until when."""

    reason: str
    seconds: float
    until: float


class Worker:
    """Works on every collection below `root`; `turn` gives each its next step."""

    def __init__(
        self, root: Path, load: Load, logs: Logs | None = None, observer: Observer | None = None
    ) -> None:
        self.root = root
        self._observer = observer or Observer()
        self._logs = logs or Logs()
        self._sharing = Alone() if self._logs.server is None else Sharing(root, self._logs)
        self._encoders = Encoders(load)
        self._merging = ThreadPoolExecutor(1, thread_name_prefix="merge")
        self._feeders: dict[str, Feeder] = {}
        self._pauses: dict[str, Pause] = {}

    def run(self) -> None:
        """Work for ever."""
        while True:
            if not self.turn():
                time.sleep(POLL_SECONDS)

    def turn(self) -> bool:
        """Take one step with every collection; False if there was nothing to do."""
        names = [name for name in list_collections(self.root) if not wanted(collection_path(self.root, name))]
        self._let_go(names)
        worked = [self._step(name) for name in names]
        return any(worked)

    def claim(self) -> None:
        """Open every collection that can be opened now; Locked if another worker has one.

        Workers that share collections take each when there is something to do.
        """
        if self._sharing.shared:
            return
        for name in list_collections(self.root):
            with suppress(CorruptFile, OSError):  # its turn will come, and the reason be told
                self._open(name)

    def excuse(self) -> None:
        """See `Feeder.excuse`; may be called from another thread, to end the process after it."""
        for feeder in list(self._feeders.values()):
            feeder.excuse()

    def close(self) -> None:
        """Let go of every collection."""
        self._let_go([])
        self._merging.shutdown()

    def _step(self, name: str) -> bool:
        if name in self._pauses and time.monotonic() < self._pauses[name].until:
            return False
        try:
            if name not in self._feeders and not self._sharing.behind(name):
                return False
            worked = self._open(name).step()
        except Exception as error:  # noqa: BLE001 (the outermost loop: the other collections go on)
            self._pause(name, error)
            return False
        if self._pauses.pop(name, None) is not None:
            self._feeders[name].log.report_problem(None)
        self._sharing.stepped(name, worked=worked)
        if self._sharing.enough(name, len(self._feeders)) and not self._feeders[name].merging:
            self._leave(name, "others may have it")
        return worked

    def _leave(self, name: str, reason: str) -> None:
        """Let others have a collection, and the time to take it."""
        if name in self._feeders:
            self._close(name)
        self._pauses[name] = Pause(reason, 0.0, time.monotonic() + SHARED_PAUSE)

    def _open(self, name: str) -> Feeder:
        if name not in self._feeders:
            directory = collection_path(self.root, name)
            self._feeders[name] = Feeder(directory, self._logs, self._encoders, self._merging, self._observer)
        return self._feeders[name]

    def _let_go(self, names: Sequence[str]) -> None:
        """Close what was dropped or is wanted, also where another collection has taken its name."""
        for name, feeder in list(self._feeders.items()):
            if name not in names or not feeder.writer.lock.stands():
                self._close(name)
                remove_dropped(self.root, name)
        for name in self._pauses.keys() - set(names):
            del self._pauses[name]

    def _close(self, name: str) -> None:
        self._feeders.pop(name).close()
        self._sharing.let_go(name)

    def _pause(self, name: str, error: Exception) -> None:
        if self._dropped(name):
            return  # the next turn lets go of it
        before = self._pauses.get(name)
        if self._sharing.shared:  # it may be this worker that is hindered and not the others
            self._leave(name, str(error))
            if isinstance(error, Locked):
                return
        seconds = min(2 * before.seconds, LONGEST_PAUSE) if before else SHORTEST_PAUSE
        reason = str(error) or type(error).__name__
        if before is None or before.reason != reason:
            logger.error("%s: %s; trying again from time to time", name, reason, exc_info=_trace(error))
        self._report(name, error, reason)  # every time: on a full disk it cannot be written down
        self._observer.hindered(name)
        self._pauses[name] = Pause(reason, seconds, time.monotonic() + seconds)

    def _dropped(self, name: str) -> bool:
        if name in self._feeders:
            return not self._feeders[name].writer.lock.stands()
        return not collection_path(self.root, name).exists()

    def _report(self, name: str, error: Exception, reason: str) -> None:
        """Show the reason on the collection's jobs, unless another worker is at them."""
        if isinstance(error, Locked):
            return
        directory = collection_path(self.root, name)
        with suppress(OSError), closing(self._logs.open(directory)) as log:
            log.report_problem(reason)


def run_worker(
    root: Path,
    load: Load | None = None,
    logs: Logs | None = None,
    *,
    parent_pipe: bool = False,
    observer: Observer | None = None,
) -> None:
    """Work on the collections below `root` until the process ends.

    With `parent_pipe` it ends when standard input does, so that it never outlives the service that started
    it, and waits for collections that a dying predecessor still has. Without it a collection that another
    worker has is an error: Locked. The process ends at once on SIGTERM and SIGINT; nothing is lost by it.
    """
    sweep_collections(root)
    worker = Worker(root, load or loader(root / "cache" / "models"), logs, observer)
    _leave_on_signals(worker)
    if parent_pipe:
        os.nice(NICENESS)
        threading.Thread(target=_leave_with_parent, args=(worker,), daemon=True).start()
    else:
        worker.claim()
    logger.info("indexing %s", root)
    worker.run()


def drain(
    root: Path,
    name: str,
    load: Load | None = None,
    progress: DrainProgress | None = None,
    logs: Logs | None = None,
) -> None:
    """Apply everything queued for one collection, merge what is to be merged, and return.

    Raises what hinders it: Locked, CorruptFile, OSError, or what loading the encoder raises.
    """
    with ThreadPoolExecutor(1) as merging:
        encoders = Encoders(load or loader(root / "cache" / "models"))
        feeder = Feeder(collection_path(root, name), logs or Logs(), encoders, merging)
        try:
            _drain(feeder, progress)
        finally:
            feeder.close()


def _drain(feeder: Feeder, progress: DrainProgress | None) -> None:
    begin, end = feeder.writer.manifest.position, feeder.log.last_position()

    def report(more: int) -> None:
        if progress is not None:
            progress(min(feeder.writer.manifest.position - begin + more, end - begin), end - begin)

    while feeder.step(report) or feeder.finish_merge():
        report(0)


def _trace(error: Exception) -> Exception | None:
    """What happens to well-kept machines is a line in the log, anything else a stack."""
    return None if isinstance(error, Locked | OSError) else error


def _leave(worker: Worker) -> None:
    with suppress(LogUnavailable):
        worker.excuse()
    os._exit(0)


def _leave_with_parent(worker: Worker) -> None:
    while sys.stdin.buffer.read(4096):
        pass
    _leave(worker)


def _leave_on_signals(worker: Worker) -> None:
    """Leave from a thread: the main one may hold what `excuse` needs."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: threading.Thread(target=_leave, args=(worker,)).start())
