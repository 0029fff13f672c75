"""The collections of a data directory, each at its current generation.

A task looks at every `CURRENT` many times a second (two `stat` each) and opens what changed in a thread;
swapping is one assignment, so a search sees the old snapshot or the new one. Superseded generations stay
for a minute, for pages that name theirs. A generation that cannot be opened leaves the one before it in
place and is reported; of one that can, a damaged segment is left out and reported (`judge`). Whatever else
writes to the directory, such as the command line, is noticed in the same way.
"""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Iterator, Mapping
from pathlib import Path

from indexer.collection import (
    CollectionSchema,
    collection_path,
    create_collection,
    drop_collection,
    list_collections,
)
from indexer.queue.contract import Log, LogUnavailable
from indexer.queue.logs import Logs
from indexer.segment.arrays import CorruptFile
from indexer.segment.manifest import CURRENT, read_current
from service.errors import GoneError, InvalidError, NotFoundError, UnavailableError
from service.snapshot import Snapshot

log = logging.getLogger(__name__)

RETRY_SECONDS = 1.0

Stamp = tuple[int, ...]  # changes when CURRENT is replaced, or the collection by another of its name


class Collection:
    """One collection: its operations log and its snapshots."""

    def __init__(self, name: str, directory: Path, operations: Log, snapshot: Snapshot) -> None:
        self.name = name
        self.directory = directory
        self.log = operations
        self.current = snapshot
        self._kept: deque[tuple[float, Snapshot]] = deque()
        self._published = asyncio.Event()

    def at(self, generation: int | None) -> Snapshot:
        """Return the snapshot of a generation, the newest by default. GoneError if it is no longer kept."""
        for snapshot in (self.current, *(kept for _, kept in self._kept)):
            if generation in (None, snapshot.generation):
                return snapshot
        newest = self.current.generation
        if generation is not None and generation > newest:
            raise InvalidError(f"generation {generation} does not exist; the newest is {newest}")
        raise GoneError(f"generation {generation} is no longer kept; start again at {newest}, the newest")

    def behind(self) -> int | None:
        """How many operations wait to be indexed; None if the log does not say. Blocks on the log."""
        try:
            return max(0, self.log.last_position() - self.current.manifest.position)
        except LogUnavailable:
            return None

    def swap(self, snapshot: Snapshot, keep_seconds: float) -> None:
        """Make `snapshot` the newest."""
        self.current.superseded()
        self._kept.appendleft((time.monotonic() + keep_seconds, self.current))
        self.current = snapshot
        self._published.set()
        self._published = asyncio.Event()

    def leave_out(self, piece: str, why: str) -> None:
        """Answer without a damaged piece from now on, whatever the generation."""
        self.current = self.current.without(piece, why)
        self._kept = deque((until, kept.without(piece, why)) for until, kept in self._kept)

    def expire(self) -> None:
        """Let go of generations whose time is over."""
        while self._kept and self._kept[-1][0] < time.monotonic():
            self._kept.pop()

    async def shows(self, position: int, seconds: float) -> bool:
        """Wait until the newest snapshot holds the log up to `position`; False when that took too long."""
        try:
            async with asyncio.timeout(seconds):
                while self.current.manifest.position < position:
                    await self._published.wait()
        except TimeoutError:
            return False
        return True


class Catalog:
    """All collections below `root`, kept up to date between `start` and `stop`."""

    def __init__(
        self, root: Path, logs: Logs, *, watch_seconds: float = 0.025, keep_seconds: float = 60.0
    ) -> None:
        self.root = root
        self.logs = logs
        self.watch_seconds = watch_seconds
        self.keep_seconds = keep_seconds
        self.errors: dict[str, str] = {}  # why the newest generation of a collection is not served
        self._open: dict[str, Collection] = {}
        self._stamps: dict[str, Stamp] = {}
        self._retry: dict[str, float] = {}
        self._watcher: asyncio.Task[None] | None = None
        self._turn = asyncio.Lock()

    async def start(self) -> None:
        """Open everything there is and begin to watch."""
        await self.refresh()
        self._watcher = asyncio.create_task(self._watch())

    async def stop(self) -> None:
        """Stop watching and close the logs."""
        if self._watcher is not None:
            self._watcher.cancel()
            await asyncio.wait({self._watcher})
        for collection in self:
            await asyncio.to_thread(collection.log.close)

    def __iter__(self) -> Iterator[Collection]:
        """Collections by name."""
        return iter([self._open[name] for name in sorted(self._open)])

    def find(self, name: str) -> Collection | None:
        """Return the collection of this name, if it is open."""
        return self._open.get(name)

    def get(self, name: str) -> Collection:
        """Return the collection of this name; the NotFoundError says how to make one."""
        if name in self._open:
            return self._open[name]
        if name in self.errors:
            raise UnavailableError(f"collection {name!r} cannot be opened: {self.errors[name]}")
        raise NotFoundError(
            f"there is no collection {name!r}: make it with PUT /v1/collections/{name} and the body {{}}"
        )

    async def create(
        self, name: str, schema: CollectionSchema, fingerprints: Mapping[str, str]
    ) -> Collection:
        """Make a collection (see `create_collection`). CollectionExists, OSError."""
        await asyncio.to_thread(_create, self.root, name, schema, fingerprints, self.logs)
        await self.refresh()
        return self.get(name)

    async def drop(self, name: str) -> None:
        """Remove a collection and its log. CollectionMissing."""
        operations = self._open[name].log if name in self._open else None
        await asyncio.to_thread(drop_collection, self.root, name)
        if operations is not None:
            await asyncio.to_thread(_destroy, name, operations)
        await self.refresh()

    def concerns(self) -> list[str]:
        """A sentence for every piece of a generation that is left out of searches."""
        return [
            f"collection {collection.name}: {piece} is left out of searches: {why}; restore it from a copy, "
            "or index the documents again into a new collection"
            for collection in self
            for piece, why in collection.current.damaged.items()
        ]

    async def judge(self, collection: Collection, piece: str, why: str | None) -> None:
        """Leave a piece of what is served out of searches for what is wrong with it; None: take it back."""
        async with self._turn:
            known = piece in collection.current.damaged
            if why is not None and not known:
                collection.leave_out(piece, why)
                log.error("collection %s: %s is left out of searches: %s", collection.name, piece, why)
            elif why is None and known:
                collection.current = await asyncio.to_thread(collection.current.again, piece)
                log.info("collection %s: %s is whole again", collection.name, piece)

    async def replaced(self, name: str) -> Collection:
        """Return the collection of this name, which was put in place of another or of nothing just now."""
        self._retry.pop(name, None)
        await self.refresh()
        return self.get(name)

    async def refresh(self) -> None:
        """Look at the directory now."""
        async with self._turn:
            found = await asyncio.to_thread(self._look)
            for known in (self._open, self._stamps, self.errors, self._retry):
                for name in known.keys() - found.keys():
                    del known[name]
            for name, stamp in found.items():
                if self._stamps.get(name) != stamp and self._retry.get(name, 0.0) <= time.monotonic():
                    await self._load(name, stamp)
            for collection in self._open.values():
                collection.expire()

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(self.watch_seconds)
            try:
                await self.refresh()
            except Exception:  # the outermost loop: what is served goes on being served
                log.exception("looking for new generations failed; trying again")
                await asyncio.sleep(RETRY_SECONDS)

    def _look(self) -> dict[str, Stamp]:
        stamps: dict[str, Stamp] = {}
        for name in list_collections(self.root):
            directory = collection_path(self.root, name)
            try:
                outer, current = directory.stat(), (directory / CURRENT).stat()
            except FileNotFoundError:
                continue  # dropped since it was listed
            stamps[name] = (outer.st_ino, current.st_ino, current.st_mtime_ns)
        return stamps

    async def _load(self, name: str, stamp: Stamp) -> None:
        same = self._stamps.get(name, stamp)[0] == stamp[0]
        try:
            if same and name in self._open:
                collection = self._open[name]
                snapshot = await asyncio.to_thread(_reopen, collection)
                collection.swap(snapshot, self.keep_seconds)
            else:
                directory, before = collection_path(self.root, name), self._open.get(name)
                self._open[name] = await asyncio.to_thread(_open, name, directory, self.logs)
                if before is not None and before.log.place != self._open[name].log.place:
                    await asyncio.to_thread(_destroy, name, before.log)
        except (CorruptFile, OSError) as error:
            self._failed(name, error)
        else:
            self._stamps[name] = stamp
            self.errors.pop(name, None)
            for reason in self._open[name].current.missing:
                log.error("%s", reason)

    def _failed(self, name: str, error: Exception) -> None:
        if self.errors.get(name) != str(error):
            log.error("collection %s: the newest generation cannot be opened: %s", name, error)
        self.errors[name] = str(error)
        self._retry[name] = time.monotonic() + RETRY_SECONDS


def _create(
    root: Path, name: str, schema: CollectionSchema, fingerprints: Mapping[str, str], logs: Logs
) -> None:
    """Make a collection and its log, or neither: a full disk may have room for the one only."""
    directory = create_collection(root, name, schema, fingerprints)
    try:
        logs.open(directory).close()
    except OSError:
        drop_collection(root, name)
        raise


def _open(name: str, directory: Path, logs: Logs) -> Collection:
    snapshot = Snapshot.open(directory, read_current(directory))
    return Collection(name, directory, logs.open(directory, snapshot.manifest.position), snapshot)


def _destroy(name: str, operations: Log) -> None:
    try:
        operations.destroy()
    except LogUnavailable as error:  # nobody will look for it under the name that it had
        log.warning("collection %s is gone, and its log stays in Redis: %s", name, error)


def _reopen(collection: Collection) -> Snapshot:
    return Snapshot.open(collection.directory, read_current(collection.directory), collection.current)
