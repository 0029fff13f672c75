"""What `/readyz` looks into: a line a check, each giving the reasons why something is amiss, or none.

A check reads what is known already and waits for nothing. Every one is also a metric, `winnow_check_ok`.
"""

import time
from collections.abc import Callable, Iterable, Iterator
from typing import Literal, NamedTuple

from service.schema.probes import CheckView
from service.state import State

STALLED_SECONDS = 60.0
"""After so long without any progress an indexer that has work is said to be stuck."""

LOW_BYTES = 256 * 2**20
"""With less room on the disk than this, generations may soon not be written."""


class Check(NamedTuple):
    """A question that `reasons` answers with what is amiss; with `holds_up` it keeps the service unready."""

    name: str
    reasons: Callable[[State], Iterable[str]]
    holds_up: bool = False


def _start(here: State) -> Iterator[str]:
    if here.warmup.pending:
        yield f"starting: {'; '.join(here.warmup.pending)}"


def _indexer(here: State) -> Iterator[str]:
    if here.indexer is not None and not here.indexer.running:
        yield "the indexer is not running; it is being started again"


def _progress(here: State) -> Iterator[str]:
    """Only where something waits: an indexer that has nothing to do may be anywhere."""
    now = time.monotonic()
    for collection in here.catalog:
        seen = here.lookout.logs.get(collection.name)
        if seen is None or seen.last <= collection.current.manifest.position:
            continue
        wait = f"collection {collection.name}: {seen.behind} operations wait to be indexed"
        if seen.problem is not None:
            yield f"{wait}: {seen.problem}"
        elif seen.stalled(now) > STALLED_SECONDS:
            yield f"{wait}, and for {seen.stalled(now):.0f} s none has got any further: does the indexer run?"


def _disk(here: State) -> Iterator[str]:
    free = here.lookout.free_bytes
    if free < LOW_BYTES:
        directory = here.settings.data_dir
        yield f"{free >> 20} MiB are left on the disk of {directory}: below {LOW_BYTES >> 20} writes may fail"


def _keys(here: State) -> Iterator[str]:
    here.keys.refresh()
    if here.keys.error:
        yield f"keys: {here.keys.error}"


def _said(what: str | None) -> Iterator[str]:
    if what is not None:
        yield what


def _draining(here: State) -> Iterator[str]:
    if here.draining.is_set():
        yield "draining: this service is about to stop; ask another, or try again later"


def _named(what: str, errors: dict[str, str]) -> list[str]:
    return [f"{what} {name}: {error}" for name, error in errors.items()]


CHECKS = (
    Check("start", _start, holds_up=True),
    Check("draining", _draining, holds_up=True),
    Check("generations", lambda here: _named("collection", here.catalog.errors)),
    Check("damage", lambda here: here.catalog.concerns()),
    Check("encoders", lambda here: _named("encoder", here.nets.errors)),
    Check("indexer", _indexer),
    Check("progress", _progress),
    Check("log", lambda here: _named("collection", here.lookout.errors)),
    Check("disk", _disk),
    Check("redis", lambda here: _said(here.lookout.redis)),
    Check("caches", lambda here: _said(here.caches.problem)),
    Check("rates", lambda here: _said(f"rates: {here.rates.lost}" if here.rates.lost else None)),
    Check("keys", _keys),
)


def checked(here: State) -> tuple[list[CheckView], list[str]]:
    """Every check, and all reasons in their order."""
    found = [(check, list(check.reasons(here))) for check in CHECKS]
    views = [_view(check, reasons) for check, reasons in found]
    return views, [reason for _, reasons in found for reason in reasons]


def _view(check: Check, reasons: list[str]) -> CheckView:
    amiss: Literal["degraded", "unready"] = "unready" if check.holds_up else "degraded"
    return {
        "name": check.name,
        "status": amiss if reasons else "ok",
        "detail": "; ".join(reasons) or None,
    }
