"""What caches do, for `service.metrics`."""

from prometheus_client import CollectorRegistry, Counter, Gauge


class CacheFamilies:
    """Counters and gauges of all caches of one application."""

    def __init__(self, registry: CollectorRegistry) -> None:
        names = ("cache",)
        self.hits = Counter(
            "winnow_cache_hits", "What was there when it was wanted.", names, registry=registry
        )
        self.misses = Counter("winnow_cache_misses", "What was not.", names, registry=registry)
        self.evictions = Counter(
            "winnow_cache_evictions", "Entries that made room for others.", names, registry=registry
        )
        self.errors = Counter(
            "winnow_cache_errors",
            "Looks, writes and entries that came to nothing: no answer in time, or not to be read.",
            names,
            registry=registry,
        )
        self.held = Gauge("winnow_cache_bytes", "Memory taken by entries.", names, registry=registry)
        self.budget = Gauge("winnow_cache_budget_bytes", "Memory that may be.", names, registry=registry)


class Tally:
    """What one cache does, as metrics."""

    def __init__(self, families: CacheFamilies, cache: str, budget: int) -> None:
        self.hits = families.hits.labels(cache)
        self.misses = families.misses.labels(cache)
        self.evictions = families.evictions.labels(cache)
        self.errors = families.errors.labels(cache)
        self.held = families.held.labels(cache)
        families.budget.labels(cache).set(budget)
