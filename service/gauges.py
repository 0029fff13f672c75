"""Metrics that are read when Prometheus asks rather than kept up to date: what is there at that moment.

A table of names, so that `/metrics` tells of all of them, whether there is anything to tell or not.
"""

from collections.abc import Callable, Iterable, Mapping

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

Sample = tuple[str, Mapping[str, str], float]  # name, labels, value

READ: Mapping[str, str] = {
    "winnow_open_requests": "Searches and requests to models that are being worked on.",
    "winnow_open_requests_limit": "As many of them as may be.",
    "winnow_check_ok": "1 where a check of /readyz has nothing to say.",
    "winnow_generation": "Generation that is served.",
    "winnow_generation_timestamp_seconds": "When the generation that is served was published.",
    "winnow_generation_up": "0 while the newest generation cannot be opened.",
    "winnow_documents": "Documents that can be found.",
    "winnow_passages": "Passages that can be found.",
    "winnow_pruned_passages": "Passages without a sparse vector for want of quality.",
    "winnow_segments": "Segments that are searched.",
    "winnow_damaged": "Damaged parts of the generation that are left out.",
    "winnow_applied_operations_total": "Operations of the log that the generation served holds.",
    "winnow_queued_operations": "Operations not yet searchable.",
    "winnow_stalled_seconds": "How long no queued operation has got any further.",
    "winnow_data_free_bytes": "Room left on the disk of the data directory.",
    "winnow_indexer_running": "1 while the embedded indexer runs.",
    "winnow_indexer_restarts_total": "Times it had to be started again.",
    "winnow_net_queued_tokens": "Tokens that wait for a net.",
    "winnow_net_queue_limit_tokens": "Tokens of a priority that may wait for a net.",
    "winnow_net_budget_tokens": "Padded tokens of a forward at most.",
    "winnow_net_tokens_per_second": "How fast a net works through its queue.",
    "winnow_cache_hits_total": "What was there when it was wanted.",
    "winnow_cache_misses_total": "What was not.",
    "winnow_cache_evictions_total": "What made room for other things.",
    "winnow_cache_declined_total": "What there was no room for.",
    "winnow_cache_errors_total": "Looks and writes that failed.",
    "winnow_cache_entries": "What is kept.",
    "winnow_cache_bytes": "Memory taken for it.",
    "winnow_cache_limit_bytes": "Memory that may be taken.",
}


class Gauges(Collector):
    """All of the table, with the samples that `sample` gives at a scrape."""

    def __init__(self, sample: Callable[[], Iterable[Sample]]) -> None:
        self.sample = sample

    def collect(self) -> Iterable[Metric]:
        """For prometheus_client."""
        families = {name: _family(name, text) for name, text in READ.items()}
        for name, labels, value in self.sample():
            families[name].add_sample(name, dict(labels), value)
        return families.values()


def _family(name: str, text: str) -> Metric:
    kind = CounterMetricFamily if name.endswith("_total") else GaugeMetricFamily
    return kind(name, text)
