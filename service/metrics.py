"""What Prometheus reads at `/metrics`. One registry per application, so two in one process do not mix.

Routes are labelled by their template, never by the path asked for, so labels stay few. Gauges are read when
scraped rather than kept up to date.
"""

import time
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.net_metrics import SECONDS, NetFamilies, Sample
from service.types import Account

if TYPE_CHECKING:  # it brings torch
    from models.in_context.cache import Stats


class Metrics:
    """Counters and histograms of one application."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "winnow_requests", "Requests answered.", ("method", "route", "status"), registry=self.registry
        )
        self.latency = Histogram(
            "winnow_request_seconds",
            "Time to the last byte of an answer.",
            ("method", "route"),
            buckets=SECONDS,
            registry=self.registry,
        )
        self.stages = Histogram(
            "winnow_stage_seconds",
            "Time of a stage.",
            ("stage", "status"),
            buckets=SECONDS,
            registry=self.registry,
        )
        self.refused = Counter(
            "winnow_refused_requests",
            "Requests refused because as many as may be were being worked on.",
            registry=self.registry,
        )
        self.degraded = Counter(
            "winnow_degraded_searches", "Searches answered with less than was asked.", registry=self.registry
        )
        self.nets = NetFamilies(self.registry)

    def account(self, accounts: Iterable[Account]) -> None:
        """Count the stages of a search, those inside of fusion included."""
        for account in accounts:
            self.stages.labels(account["stage"], account["status"]).observe(account["ms"] / 1000)
            for inner in account["inputs"]:
                self.account(inner)

    def read(self, sample: Callable[[], Iterable[Sample]]) -> None:
        """Ask `sample` for gauges at every scrape."""
        self.registry.register(_Gauges(sample))

    def exposition(self) -> bytes:
        """The text that Prometheus reads."""
        return generate_latest(self.registry)


def kv_cache(net: str, stats: "Stats") -> Iterator[Sample]:
    """What a language model keeps of documents that it has read, and how that has served."""
    labels = {"net": net}
    yield "winnow_kv_cache_hits", "Documents that were there when they were wanted.", labels, stats.hits
    yield "winnow_kv_cache_misses", "Documents that were not.", labels, stats.misses
    yield "winnow_kv_cache_evictions", "Documents that made room for others.", labels, stats.evictions
    yield "winnow_kv_cache_declined", "Documents for which there was no room.", labels, stats.declined
    yield "winnow_kv_cache_documents", "Documents that are kept.", labels, stats.documents
    yield "winnow_kv_cache_bytes", "Memory taken for documents.", labels, stats.bytes
    yield "winnow_kv_cache_budget_bytes", "Memory that may be taken.", labels, stats.budget_bytes


class _Gauges(Collector):
    def __init__(self, sample: Callable[[], Iterable[Sample]]) -> None:
        self.sample = sample

    def collect(self) -> Iterable[Metric]:
        families: dict[str, GaugeMetricFamily] = {}
        for name, text, labels, value in self.sample():
            family = families.setdefault(name, GaugeMetricFamily(name, text, labels=list(labels)))
            family.add_metric(list(labels.values()), value)
        return families.values()


class Measured:
    """ASGI middleware: counts and times every request."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self.app = app
        self.metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        began = time.perf_counter()
        status = 500  # what the server answers when an exception passes through here

        async def noting_send(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self.app(scope, receive, noting_send)
        finally:
            route = getattr(scope.get("route"), "path", "none")
            self.metrics.requests.labels(scope["method"], route, str(status)).inc()
            self.metrics.latency.labels(scope["method"], route).observe(time.perf_counter() - began)
