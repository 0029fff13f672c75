"""What the gauges show, read off the parts of a running service: no disk, no lock held for long."""

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, get_args

from models.roles import Role
from service.batch_queue import Priority
from service.batcher import Batcher
from service.catalog import Collection
from service.gate import Flow
from service.gauges import Sample
from service.health import CHECKS
from service.lookout import Lookout
from service.state import State

if TYPE_CHECKING:  # it brings torch
    from models.in_context.cache import Stats


def readings(state: State, flow: Flow) -> Iterator[Sample]:
    """All samples of one scrape."""
    yield "winnow_open_requests", {}, flow.inside
    yield "winnow_open_requests_limit", {}, state.settings.requests
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
        yield from documents_read(net.net.name, net.cache.stats())
    yield from state.caches.readings()
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


def documents_read(net: str, stats: "Stats") -> Iterator[Sample]:
    """What a language model keeps of documents that it has read. Other caches are told of alike, by names
    of their own in the label `cache`, and with an empty `net` where they are of none.
    """
    labels = {"cache": "in_context", "net": net}
    yield "winnow_cache_hits_total", labels, stats.hits
    yield "winnow_cache_misses_total", labels, stats.misses
    yield "winnow_cache_evictions_total", labels, stats.evictions
    yield "winnow_cache_declined_total", labels, stats.declined
    yield "winnow_cache_entries", labels, stats.documents
    yield "winnow_cache_bytes", labels, stats.bytes
    yield "winnow_cache_limit_bytes", labels, stats.budget_bytes
