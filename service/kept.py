"""What is kept of every search: counts, times of its stages, and a line in the log if it was slow.

The line has no word of the question, which is nobody's business but the client's.
"""

import logging
from collections.abc import Sequence

from service.log_lines import fields, note
from service.metrics import Metrics
from service.pipeline import Outcome, degraded
from service.stages import Pipeline
from service.types import Account

log = logging.getLogger(__name__)


class Kept:
    """Keeps searches; those that took more than `slow_ms` are logged, none where it is 0."""

    def __init__(self, metrics: Metrics, slow_ms: int) -> None:
        self.metrics = metrics
        self.slow_ms = slow_ms

    def keep(self, collection: str, pipeline: str | Pipeline, outcome: Outcome, seconds: float) -> None:
        """A search that has just ended. A pipeline that a request spelled out counts as `unnamed`."""
        name = pipeline if isinstance(pipeline, str) else "unnamed"
        less = degraded(outcome.accounts)
        result = "failed" if outcome.failure is not None else "degraded" if less else "complete"
        self.metrics.pipelines.labels(name, result).observe(seconds)
        self.metrics.account(outcome.accounts)
        note("degraded", *less)
        if 0 < self.slow_ms < seconds * 1000:
            took, stages = round(seconds * 1000), times(outcome.accounts)
            said = fields(collection=collection, pipeline=name, outcome=result, ms=took, stages=stages)
            log.warning("slow search", extra=said)


def times(accounts: Sequence[Account]) -> list[str]:
    """Where the time went: `stage: ms`, each pipeline of a fusion in brackets."""
    return [
        f"{account['stage']}: {account['ms']:.0f}"
        + "".join(f" {times(inner)}" for inner in account["inputs"])
        for account in accounts
    ]
