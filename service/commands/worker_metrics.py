"""Metrics of the indexer, on an address of its own: it is another process, whose memory and times only it
knows. What can be told from the log and the generations alone, how far behind it is, the service tells.
"""

from prometheus_client import Counter, Histogram, start_http_server

from indexer.observer import Observer
from service.commands.common import CommandError
from service.metrics import new_registry

SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)


class IndexerMetrics(Observer):
    """What one worker does, as metrics."""

    def __init__(self) -> None:
        self.registry = registry = new_registry()
        of = ["collection"]
        self._operations = Counter("winnow_indexer_operations", "Operations applied.", of, registry=registry)
        self._documents = Counter("winnow_indexer_documents", "Documents indexed.", of, registry=registry)
        self._passages = Counter("winnow_indexer_passages", "Passages indexed.", of, registry=registry)
        self._batches = Histogram(
            "winnow_indexer_batch_seconds",
            "Time from taking a batch off the log to its generation.",
            of,
            buckets=SECONDS,
            registry=registry,
        )
        self._failed = Counter("winnow_indexer_failed_batches", "Batches that raised.", of, registry=registry)
        self._buried = Counter("winnow_indexer_dead_letters", "Operations given up.", of, registry=registry)
        self._merges = Histogram(
            "winnow_indexer_merge_seconds", "Time of a merge.", of, buckets=SECONDS, registry=registry
        )
        self._failed_merges = Counter(
            "winnow_indexer_failed_merges", "Merges that raised.", of, registry=registry
        )
        self._hindered = Counter(
            "winnow_indexer_hindrances", "Times a collection was left alone.", of, registry=registry
        )

    def applied(self, name: str, operations: int, documents: int, passages: int, seconds: float) -> None:
        """A batch."""
        self._operations.labels(name).inc(operations)
        self._documents.labels(name).inc(documents)
        self._passages.labels(name).inc(passages)
        self._batches.labels(name).observe(seconds)

    def failed(self, name: str) -> None:
        """A batch that raised."""
        self._failed.labels(name).inc()

    def buried(self, name: str) -> None:
        """A dead letter."""
        self._buried.labels(name).inc()

    def merged(self, name: str, seconds: float) -> None:
        """A merge."""
        self._merges.labels(name).observe(seconds)

    def merge_failed(self, name: str) -> None:
        """A merge that raised."""
        self._failed_merges.labels(name).inc()

    def hindered(self, name: str) -> None:
        """A pause."""
        self._hindered.labels(name).inc()


def shown_at(address: str) -> IndexerMetrics:
    """Metrics that whoever reaches HOST:PORT may read, as long as this process lives."""
    host, _, port = address.rpartition(":")
    metrics = IndexerMetrics()
    try:
        start_http_server(int(port), host, metrics.registry)
    except OSError as error:
        raise CommandError(
            f"cannot show metrics at {address} ({error.strerror}): set WINNOW_WORKER_METRICS to "
            "another HOST:PORT"
        ) from error
    return metrics
