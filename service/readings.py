"""What the gauges show, read off the parts of a running service: no disk, no lock held for long."""

import time
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, get_args

from models.roles import Role
from service.batch_queue import Priority
from service.batcher import Batcher
from service.cache import Tally
from service.catalog import Collection
from service.flow import Flow
from service.gauges import Sample
from service.health import CHECKS
from service.lookout import Lookout
from service.state import State

if TYPE_CHECKING:  # it brings torch
    from models.in_context.cache import Stats


def readings(state: State, flow: Flow) -> Iterator[Sample]:
    """All samples of one scrape."""
    yield "winnow_open_requests", {}, flow.inside
    yield "winnow_open_requests_limit", {}, state.settings.most_requests()
    for check in CHECKS:
        yield "winnow_check_ok", {"check": check.name}, not list(check.reasons(state))
    yield "winnow_data_free_bytes", {}, state.lookout.free_bytes
    for collection in state.catalog:
        yield from _collection(collection, state.lookout)
    for name in {collection.name for collection in state.catalog} | state.catalog.errors.keys():
        yield "winnow_generation_up", {"collection": name}, name not in state.catalog.errors
    for role, batcher in state.nets.queues():
        yield from queue(role, batcher)
    for net in state.nets.rerankers():
        yield from _cache("in_context", net.net.name, _of_stats(net.cache.stats()))
    for name, tally in state.caches.tallies().items():
        yield from _cache(name, "", _of_tally(tally))
    if state.indexer is not None:
        yield "winnow_indexer_running", {}, state.indexer.running
        yield "winnow_indexer_restarts_total", {}, state.indexer.restarts


def _collection(collection: Collection, lookout: Lookout) -> Iterator[Sample]:
    labels, snapshot = {"collection": collection.name}, collection.current
    position = snapshot.manifest.position
    yield "winnow_generation", labels, snapshot.generation
    yield "winnow_generation_timestamp_seconds", labels, snapshot.manifest.created
    yield "winnow_documents", labels, snapshot.statistics.documents
    yield "winnow_passages", labels, snapshot.statistics.passages
    yield "winnow_pruned_passages", labels, sum(part.entry.pruned_rows for part in snapshot.parts)
    yield "winnow_segments", labels, len(snapshot.parts)
    yield "winnow_damaged", labels, len(snapshot.damaged)
    yield "winnow_applied_operations_total", labels, position
    if (seen := lookout.logs.get(collection.name)) is not None:
        yield "winnow_queued_operations", labels, max(0, seen.last - position)
        yield "winnow_stalled_seconds", labels, seen.stalled(time.monotonic()) if seen.last > position else 0


def queue(role: Role, batcher: Batcher) -> Iterator[Sample]:
    """What stands before a net."""
    labels = {"role": role, "net": batcher.name}
    for priority in get_args(Priority):
        waiting = batcher.tokens_of(priority)
        yield "winnow_net_queued_tokens", {**labels, "priority": priority}, waiting
    yield "winnow_net_queue_limit_tokens", labels, batcher.limit
    yield "winnow_net_budget_tokens", labels, batcher.budget
    yield "winnow_net_tokens_per_second", labels, batcher.tokens_per_second


def _cache(cache: str, net: str, numbers: Mapping[str, float]) -> Iterator[Sample]:
    """One cache: `net` is whose it is, empty where it is of none."""
    for name, number in numbers.items():
        yield f"winnow_cache_{name}", {"cache": cache, "net": net}, number


def _of_tally(tally: Tally) -> dict[str, float]:
    counts = ("hits", "misses", "evictions", "declined", "errors")
    totals = {f"{name}_total": getattr(tally, name) for name in counts}
    return {**totals, "bytes": tally.bytes, "limit_bytes": tally.limit_bytes}


def _of_stats(stats: "Stats") -> dict[str, float]:
    totals = {f"{name}_total": getattr(stats, name) for name in ("hits", "misses", "evictions", "declined")}
    return {**totals, "entries": stats.documents, "bytes": stats.bytes, "limit_bytes": stats.budget_bytes}
