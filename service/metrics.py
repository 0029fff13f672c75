"""What Prometheus reads at `/metrics`. One registry per application, so two in one process do not mix.

Routes are labelled by their template, never by the path asked for, so labels stay few. Gauges are read when
scraped rather than kept up to date.
"""

import time
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, get_args

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from models.roles import Role
from service.batcher import Batcher, Dropped, Observer, Priority
from service.types import Account

if TYPE_CHECKING:  # it brings torch
    from models.in_context.cache import Stats

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0)
SIZES = (1, 2, 4, 8, 16, 32, 64, 128)

Sample = tuple[str, str, dict[str, str], float]  # name, help, labels, value


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

        net = ("role", "net")  # one name may stand for two nets, as the default encoder's does
        self.net_waits = Histogram(
            "winnow_net_wait_seconds",
            "Time a call waited for a net.",
            (*net, "priority"),
            buckets=SECONDS,
            registry=self.registry,
        )
        self.net_batches = Histogram(
            "winnow_net_batch_texts", "Texts of a forward.", net, buckets=SIZES, registry=self.registry
        )
        self.net_tokens = Counter("winnow_net_tokens", "Tokens encoded.", net, registry=self.registry)
        self.net_padding = Counter(
            "winnow_net_padding_tokens",
            "Tokens of padding that were encoded beside them.",
            net,
            registry=self.registry,
        )
        self.net_seconds = Counter(
            "winnow_net_seconds", "Time spent in forwards.", net, registry=self.registry
        )
        self.net_halvings = Counter(
            "winnow_net_halvings",
            "Forwards that ran out of memory and were run again in halves.",
            net,
            registry=self.registry,
        )
        self.net_dropped = Counter(
            "winnow_net_dropped_texts",
            "Texts that left a queue, or never entered it, without a forward.",
            (*net, "reason"),
            registry=self.registry,
        )

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


def queue(role: Role, batcher: Batcher) -> Iterator[Sample]:
    """What stands before a net."""
    labels = {"role": role, "net": batcher.name}
    yield "winnow_net_queued_tokens", "Tokens that wait for a net.", labels, batcher.queued_tokens
    yield "winnow_net_budget_tokens", "Padded tokens of a forward at most.", labels, batcher.budget
    speed = batcher.tokens_per_second
    yield "winnow_net_tokens_per_second", "How fast a net works through its queue.", labels, speed


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


class NetMetrics(Observer):
    """What one batcher does, as metrics."""

    def __init__(self, metrics: Metrics, role: Role, net: str) -> None:
        self._waits = {
            priority: metrics.net_waits.labels(role, net, priority) for priority in get_args(Priority)
        }
        self._dropped = {
            reason: metrics.net_dropped.labels(role, net, reason) for reason in get_args(Dropped)
        }
        self._batches = metrics.net_batches.labels(role, net)
        self._tokens = metrics.net_tokens.labels(role, net)
        self._padding = metrics.net_padding.labels(role, net)
        self._seconds = metrics.net_seconds.labels(role, net)
        self._halvings = metrics.net_halvings.labels(role, net)

    def waited(self, priority: Priority, seconds: float) -> None:
        """Time in the queue."""
        self._waits[priority].observe(seconds)

    def ran(self, texts: int, tokens: int, padding: int, seconds: float) -> None:
        """One forward."""
        self._batches.observe(texts)
        self._tokens.inc(tokens)
        self._padding.inc(padding)
        self._seconds.inc(seconds)

    def halved(self) -> None:
        """One forward that ran out of memory."""
        self._halvings.inc()

    def dropped(self, reason: Dropped, texts: int) -> None:
        """Texts that cost no forward."""
        self._dropped[reason].inc(texts)
