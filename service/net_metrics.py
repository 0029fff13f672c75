"""What the batchers before nets do, for `service.metrics`."""

from collections.abc import Iterator
from typing import get_args

from prometheus_client import CollectorRegistry, Counter, Histogram

from models.roles import Role
from service.batcher import Batcher, Dropped, Observer, Priority

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0)
SIZES = (1, 2, 4, 8, 16, 32, 64, 128)

Sample = tuple[str, str, dict[str, str], float]  # name, help, labels, value


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
        self.tokens = Counter("winnow_net_tokens", "Tokens encoded.", net, registry=registry)
        self.padding = Counter(
            "winnow_net_padding_tokens",
            "Tokens of padding that were encoded beside them.",
            net,
            registry=registry,
        )
        self.seconds = Counter("winnow_net_seconds", "Time spent in forwards.", net, registry=registry)
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
        self._halvings = families.halvings.labels(role, net)

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


def queue(role: Role, batcher: Batcher) -> Iterator[Sample]:
    """What stands before a net."""
    labels = {"role": role, "net": batcher.name}
    yield "winnow_net_queued_tokens", "Tokens that wait for a net.", labels, batcher.queued_tokens
    yield "winnow_net_budget_tokens", "Padded tokens of a forward at most.", labels, batcher.budget
    speed = batcher.tokens_per_second
    yield "winnow_net_tokens_per_second", "How fast a net works through its queue.", labels, speed
