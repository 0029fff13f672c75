"""What the batchers before nets do, for `service.metrics`."""

from typing import get_args

from prometheus_client import CollectorRegistry, Counter, Histogram

from models.roles import Role
from service.batcher import Dropped, Observer, Priority

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0)
SIZES = (1, 2, 4, 8, 16, 32, 64, 128)
TOKENS = (16, 64, 256, 512, 1024, 2048, 4096, 8192, 16384, 65536)


class NetFamilies:
    """Counters and histograms of all nets of one application."""

    def __init__(self, registry: CollectorRegistry) -> None:
        net = ("role", "net")  # one name may stand for two nets, as the default encoder's does
        self.waits = Histogram(
            "winnow_net_wait_seconds",
            "Time a call waited for a net.",
            (*net, "priority"),
            buckets=SECONDS,
            registry=registry,
        )
        self.batches = Histogram(
            "winnow_net_batch_texts", "Texts of a forward.", net, buckets=SIZES, registry=registry
        )
        self.tokens = Histogram(
            "winnow_net_batch_tokens", "Tokens of a forward.", net, buckets=TOKENS, registry=registry
        )
        self.padding = Counter(
            "winnow_net_padding_tokens",
            "Tokens of padding that were encoded beside them.",
            net,
            registry=registry,
        )
        self.seconds = Histogram(
            "winnow_net_forward_seconds", "Time of a forward.", net, buckets=SECONDS, registry=registry
        )
        self.failed = Counter("winnow_net_failed_forwards", "Forwards that raised.", net, registry=registry)
        self.halvings = Counter(
            "winnow_net_halvings",
            "Forwards that ran out of memory and were run again in halves.",
            net,
            registry=registry,
        )
        self.dropped = Counter(
            "winnow_net_dropped_texts",
            "Texts that left a queue, or never entered it, without a forward.",
            (*net, "reason"),
            registry=registry,
        )


class NetMetrics(Observer):
    """What one batcher does, as metrics."""

    def __init__(self, families: NetFamilies, role: Role, net: str) -> None:
        self._waits = {
            priority: families.waits.labels(role, net, priority) for priority in get_args(Priority)
        }
        self._dropped = {reason: families.dropped.labels(role, net, reason) for reason in get_args(Dropped)}
        self._batches = families.batches.labels(role, net)
        self._tokens = families.tokens.labels(role, net)
        self._padding = families.padding.labels(role, net)
        self._seconds = families.seconds.labels(role, net)
        self._failed = families.failed.labels(role, net)
        self._halvings = families.halvings.labels(role, net)

    def waited(self, priority: Priority, seconds: float) -> None:
        """Time in the queue."""
        self._waits[priority].observe(seconds)

    def ran(self, texts: int, tokens: int, padding: int, seconds: float) -> None:
        """One forward."""
        self._batches.observe(texts)
        self._tokens.observe(tokens)
        self._padding.inc(padding)
        self._seconds.observe(seconds)

    def halved(self) -> None:
        """One forward that ran out of memory."""
        self._halvings.inc()

    def failed(self) -> None:
        """One forward that raised."""
        self._failed.inc()

    def dropped(self, reason: Dropped, texts: int) -> None:
        """Texts that cost no forward."""
        self._dropped[reason].inc(texts)
