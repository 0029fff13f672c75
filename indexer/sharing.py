"""How several workers share the collections of one data directory.

Whoever finds that a collection is behind its log takes it, if nobody has it, and lets go of it when there is
nothing more to do. A worker that has several lets go of one after a while all the same, since another may
have none.
"""

import time
from pathlib import Path

from indexer.collection import collection_path
from indexer.queue.contract import Log
from indexer.queue.logs import Logs
from indexer.segment.manifest import CURRENT, read_current

IDLE_SECONDS = 1.0
TURN_SECONDS = 10.0


class Alone:
    """One worker has all collections and keeps them."""

    shared = False

    def behind(self, name: str) -> bool:
        """See `Sharing.behind`: there is no cheaper way to know than to take it."""
        return True

    def stepped(self, name: str, *, worked: bool) -> None:
        """See `Sharing.stepped`."""

    def enough(self, name: str, held: int) -> bool:
        """See `Sharing.enough`."""
        return False

    def let_go(self, name: str) -> None:
        """See `Sharing.let_go`."""


class Sharing:
    """Which collections below `root` to take, and when to let go of them. Not for several threads."""

    shared = True

    def __init__(self, root: Path, logs: Logs) -> None:
        self._root, self._logs = root, logs
        self._seen: dict[str, tuple[tuple[int, int], Log, int]] = {}
        self._taken: dict[str, float] = {}
        self._worked: dict[str, float] = {}

    def behind(self, name: str) -> bool:
        """Whether a collection's log holds what no generation covers. OSError or CorruptFile as they come."""
        directory = collection_path(self._root, name)
        current = (directory / CURRENT).stat()
        stamp = (current.st_ino, current.st_mtime_ns)
        if name not in self._seen or self._seen[name][0] != stamp:
            applied = read_current(directory).position
            self._seen[name] = stamp, self._logs.open(directory, applied), applied
        _, log, applied = self._seen[name]
        return log.last_position() > applied

    def stepped(self, name: str, *, worked: bool) -> None:
        """Hear that a collection had its turn."""
        now = time.monotonic()
        self._taken.setdefault(name, now)
        if worked:
            self._worked[name] = now

    def enough(self, name: str, held: int) -> bool:
        """Whether to let go of a collection, where a worker has so many."""
        now, taken = time.monotonic(), self._taken[name]
        idle = now - self._worked.get(name, taken) > IDLE_SECONDS
        return idle or (held > 1 and now - taken > TURN_SECONDS)

    def let_go(self, name: str) -> None:
        """Hear that it is let go."""
        self._taken.pop(name, None)
        self._worked.pop(name, None)
