"""The caches of a service: in its memory or, where the settings name a Redis, there."""

from service.cache import Cache, MemoryCache, key_of
from service.cache_metrics import CacheFamilies, Tally
from service.query_encodings import QueryEncodings
from service.redis_cache import RedisLink
from service.settings import Settings


class Caches:
    """A cache of each kind; None for one that may take nothing."""

    def __init__(self, settings: Settings, families: CacheFamilies) -> None:
        self._families = families
        self._link = None if settings.redis_url is None else RedisLink(settings.redis_url.get_secret_value())
        self.results = self._cache("results", settings.result_cache_bytes)
        encodings = self._cache("encodings", settings.encoding_cache_bytes)
        self.encodings = None if encodings is None else QueryEncodings(encodings)
        key_of()  # reads our sources, before there is a search that would wait for it

    @property
    def problem(self) -> str | None:
        """Why there are none at present, if that is so."""
        return None if self._link is None else self._link.problem

    async def start(self) -> None:
        """Connect."""
        if self._link is not None:
            await self._link.start()

    async def stop(self) -> None:
        """Close what is open."""
        if self._link is not None:
            await self._link.stop()

    def _cache(self, name: str, budget: int) -> Cache | None:
        if not budget:
            return None
        tally = Tally(self._families, name, budget)
        return MemoryCache(budget, tally) if self._link is None else self._link.cache(name, budget, tally)
