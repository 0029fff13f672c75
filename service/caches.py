"""The caches of a service: in its memory or, where the settings name a Redis, there."""

from collections.abc import Mapping

from service.cache import Cache, MemoryCache, Tally, key_of
from service.query_encodings import QueryEncodings
from service.redis_cache import RedisLink
from service.settings import Settings


class Caches:
    """A cache for answers and one for encodings; None for one that may take nothing."""

    def __init__(self, settings: Settings) -> None:
        url = settings.redis()
        self._link = None if url is None else RedisLink(url)
        self._caches: dict[str, Cache] = {}
        self.results = self._cache("results", settings.result_cache_bytes)
        encodings = self._cache("encodings", settings.encoding_cache_bytes)
        self.encodings = None if encodings is None else QueryEncodings(encodings)
        key_of()  # reads our sources, before there is a search that would wait for it

    @property
    def problem(self) -> str | None:
        """Why there are none at present, or nothing new is kept, if that is so."""
        return None if self._link is None else self._link.problem

    async def start(self) -> None:
        """Connect."""
        if self._link is not None:
            await self._link.start()

    async def stop(self) -> None:
        """Close what is open."""
        if self._link is not None:
            await self._link.stop()

    def tallies(self) -> Mapping[str, Tally]:
        """What has become of them, by name."""
        return {name: cache.tally for name, cache in self._caches.items()}

    def _cache(self, name: str, budget: int) -> Cache | None:
        if budget:
            self._caches[name] = MemoryCache(budget) if self._link is None else self._link.cache(name, budget)
        return self._caches.get(name)
