"""Reads every byte that is served and compares it with its checksum, slowly and for ever.

Opening a segment looks at sizes, headers and footers only, so that it takes no time; a byte that has changed
elsewhere would be searched, and might lead a kernel out of its array. So all of it is read once before the
service says that it is ready, and after that at a leisurely pace. What is damaged the catalog leaves out of
searches, and takes back when it has been restored.
"""

import asyncio
import errno
import hashlib
import logging
import math
from pathlib import Path
from typing import NamedTuple

from indexer.segment.integrity import Piece, pieces
from indexer.segment.manifest import FileEntry
from service.catalog import Catalog, Collection

log = logging.getLogger(__name__)

BLOCK = 1 << 20
REST_SECONDS = 60.0
DAMAGE = (errno.ENOENT, errno.EIO)


class Damage(NamedTuple):
    """A file that is not what was written, and how."""

    path: Path
    why: str


class Scrub:
    """Goes round the collections at so many bytes a second; 0: never."""

    def __init__(self, catalog: Catalog, bytes_per_second: int) -> None:
        self.bytes_per_second = bytes_per_second
        self._catalog = catalog
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin."""
        if self.bytes_per_second:
            self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """Stop, if it runs."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})

    async def at_once(self) -> None:
        """Read everything as fast as it comes, unless nothing is ever to be read."""
        if self.bytes_per_second:
            await self.round(math.inf)

    async def round(self, bytes_per_second: float) -> None:
        """Read everything once. What cannot be read for want of something else is left for the next round."""
        for collection in self._catalog:
            for piece in pieces(collection.directory, collection.current.manifest):
                try:
                    damage = await _damage(piece, bytes_per_second)
                except OSError as error:
                    log.warning("collection %s: %s cannot be checked: %s", collection.name, piece.name, error)
                else:
                    if _concerns(damage, collection, piece.name):
                        await self._catalog.judge(collection, piece.name, damage and damage.why)

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(REST_SECONDS)
            await self.round(self.bytes_per_second)


def _concerns(damage: Damage | None, collection: Collection, piece: str) -> bool:
    """Whether what was read is part of the generation that is served by now.

    Files of one that was superseded meanwhile may have been removed; those that it shares with the next may
    have another folder.
    """
    now = [each for each in pieces(collection.directory, collection.current.manifest) if each.name == piece]
    files = [path for each in now for path in each.files]
    if damage is None or not damage.path.exists():
        return bool(now) and (damage is None or damage.path in files)
    return damage.path.name in [path.name for path in files]


async def _damage(piece: Piece, bytes_per_second: float) -> Damage | None:
    """What is wrong with the first of its files that is not what was written. OSError."""
    for path, entry in piece.files.items():
        try:
            found = await _measure(path, bytes_per_second)
        except OSError as error:
            if error.errno not in DAMAGE:
                raise
            return Damage(path, f"{path.name}: {error.strerror}")
        if found.size != entry.size:
            return Damage(path, f"{path.name}: {found.size} bytes where the manifest says {entry.size}")
        if found != entry:
            return Damage(path, f"{path.name}: the bytes do not match the manifest's checksum")
    return None


async def _measure(path: Path, bytes_per_second: float) -> FileEntry:
    digest, size = hashlib.sha256(), 0
    with await asyncio.to_thread(path.open, "rb") as file:
        while block := await asyncio.to_thread(file.read, BLOCK):
            await asyncio.to_thread(digest.update, block)
            size += len(block)
            await asyncio.sleep(len(block) / bytes_per_second)
    return FileEntry(size=size, sha256=digest.hexdigest())
