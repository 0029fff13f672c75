"""Where caches keep bytes under a key, within a budget: the contract, and the one in this process's memory.

Keys are digests of everything that the bytes depend on, so nothing that is kept ever becomes wrong; it only
stops being asked for, and makes room. A cache never fails: what cannot be had is a miss.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Protocol, TypeVar

from cachetools import LRUCache

ENTRY_BYTES = 256
"""What an entry takes in memory beside its bytes, about."""

OURS = ("models", "indexer", "service")

Key = bytes
T = TypeVar("T")


@dataclass
class Tally:
    """What has become of a cache so far, and how full it is.

    `declined` had no room, or were larger than there may be; `errors` are looks and writes that came to
    nothing, and entries that could not be read.
    """

    limit_bytes: int
    bytes: int = 0
    hits: int = 0
    misses: int = 0
    evictions: int = 0
    declined: int = 0
    errors: int = 0


class Cache(Protocol):
    """Bytes by key. For the event loop only."""

    @property
    def tally(self) -> Tally:
        """What has become of it."""
        ...

    async def get(self, key: Key) -> bytes | None:
        """What is kept under a key, which counts as used now."""
        ...

    def put(self, key: Key, value: bytes) -> None:
        """Keep this, soon if not at once, unless it is too large; what was used longest ago makes room."""
        ...

    def remove(self, key: Key) -> None:
        """Keep nothing under this key."""
        ...


class MemoryCache:
    """A cache of one process: `budget` bytes, of which each entry takes ENTRY_BYTES beside its own."""

    def __init__(self, budget: int) -> None:
        self.tally = Tally(budget)
        self._kept = _Lru(self.tally)

    async def get(self, key: Key) -> bytes | None:
        """What is kept."""
        return self._kept.get(key)

    def put(self, key: Key, value: bytes) -> None:
        """Keep this at once."""
        if cost(value) <= self.tally.limit_bytes:
            # A copy: what made room for more than it wrote, as orjson does, leaves holes in the heap, which
            # grew to seven times the budget.
            self._kept[key] = bytes(memoryview(value))
            self.tally.bytes = int(self._kept.currsize)
        else:
            self.tally.declined += 1

    def remove(self, key: Key) -> None:
        """Keep it no longer."""
        self._kept.pop(key, None)
        self.tally.bytes = int(self._kept.currsize)


class _Lru(LRUCache[Key, bytes]):
    def __init__(self, tally: Tally) -> None:
        super().__init__(tally.limit_bytes, getsizeof=cost)
        self._tally = tally

    def popitem(self) -> tuple[Key, bytes]:
        self._tally.evictions += 1
        return super().popitem()


async def recall(cache: Cache, key: Key, read: Callable[[bytes], T]) -> T | None:
    """What `read` makes of what is kept. Where that is a ValueError it is a miss, and kept no longer."""
    kept = await cache.get(key)
    if kept is not None:
        try:
            value = read(kept)
        except ValueError:
            cache.tally.errors += 1
            cache.remove(key)
        else:
            cache.tally.hits += 1
            return value
    cache.tally.misses += 1
    return None


def cost(value: bytes) -> int:
    """What an entry counts."""
    return len(value) + ENTRY_BYTES


def key_of(*parts: str) -> Key:
    """32 bytes for these parts, and for this program: another version of it may give another value."""
    digest = sha256(_program())
    for part in parts:
        said = part.encode()
        digest.update(b"%d:" % len(said) + said)
    return digest.digest()


@cache
def _program() -> bytes:
    """A digest of our sources. The version's number would do between releases, and not before one."""
    root, total = Path(__file__).parents[1], sha256()
    for path in sorted(path for name in OURS for path in (root / name).rglob("*.py")):
        total.update(sha256(path.read_bytes()).digest())
    return total.digest()
