"""What Prometheus reads at `/metrics`. One registry per application, so two in one process do not mix.

Counters and histograms are kept here as things happen; gauges are read when scraped (gauges.py). Every name
stands in docs/metrics.md.
"""

import platform
from collections.abc import Callable, Iterable
from importlib.metadata import version

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    GCCollector,
    Histogram,
    Info,
    PlatformCollector,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)

from service.gauges import Gauges, Sample
from service.net_metrics import SECONDS, NetFamilies
from service.types import Account


def new_registry() -> CollectorRegistry:
    """A registry that says what this process is: memory, files, garbage collection, versions."""
    # Else there is a series beside each counter, of when it began, that nobody reads.
    disable_created_metrics()  # type: ignore[no-untyped-call]
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    GCCollector(registry=registry)
    versions = {"version": version("winnow-search"), "torch": version("torch")}
    Info("winnow_build", "Versions.", registry=registry).info(
        {**versions, "python": platform.python_version()}
    )
    return registry


class Metrics:
    """Counters and histograms of one application."""

    def __init__(self) -> None:
        self.registry = registry = new_registry()
        self.requests = Counter(
            "winnow_requests", "Requests answered.", ("method", "route", "status"), registry=registry
        )
        self.latency = Histogram(
            "winnow_request_seconds",
            "Time to the last byte of an answer.",
            ("method", "route"),
            buckets=SECONDS,
            registry=registry,
        )
        self.in_flight = Gauge(
            "winnow_requests_in_flight", "Requests not yet answered, of every kind.", registry=registry
        )
        self.refused = Counter(
            "winnow_refused_requests",
            "Requests refused because as many as may be were being worked on.",
            registry=registry,
        )
        self.pipelines = Histogram(
            "winnow_pipeline_seconds",
            "Time of a pipeline.",
            ("pipeline", "outcome"),
            buckets=SECONDS,
            registry=registry,
        )
        self.stages = Histogram(
            "winnow_stage_seconds",
            "Time of a stage.",
            ("stage", "status"),
            buckets=SECONDS,
            registry=registry,
        )
        self.hits_in = Counter("winnow_stage_in_hits", "Hits given to a stage.", ["stage"], registry=registry)
        self.hits_out = Counter("winnow_stage_out_hits", "Hits a stage gave.", ["stage"], registry=registry)
        self.scored = Counter(
            "winnow_stage_scored_hits", "Hits a rescoring stage looked at.", ["stage"], registry=registry
        )
        self.search_waits = Histogram(
            "winnow_search_wait_seconds",
            "Time that searches waited for their turn.",
            buckets=SECONDS,
            registry=registry,
        )
        self.worker_waits = Histogram(
            "winnow_worker_wait_seconds",
            "Time that work waited for a worker thread.",
            buckets=SECONDS,
            registry=registry,
        )
        self.nets = NetFamilies(registry)

    def account(self, accounts: Iterable[Account]) -> None:
        """Count the stages of a search, those inside of fusion included."""
        for account in accounts:
            stage = account["stage"]
            self.stages.labels(stage, account["status"]).observe(account["ms"] / 1000)
            self.hits_in.labels(stage).inc(account["in"])
            self.hits_out.labels(stage).inc(account["out"])
            if "scored" in account:
                self.scored.labels(stage).inc(account["scored"])
            for inner in account["inputs"]:
                self.account(inner)

    def read(self, sample: Callable[[], Iterable[Sample]]) -> None:
        """Ask `sample` for gauges at every scrape."""
        self.registry.register(Gauges(sample))

    def exposition(self) -> bytes:
        """The text that Prometheus reads."""
        return generate_latest(self.registry)
