"""What a log keeps of a job, and what a client is shown of it: the same for every log."""

import time
from dataclasses import dataclass

from indexer.queue.contract import Job, State

KEPT_SECONDS = 7 * 24 * 3600
KEPT_JOBS = 10_000
"""Finished jobs are forgotten after so long, or when so many came after, unless they have dead letters."""


@dataclass(frozen=True, slots=True)
class Progress:
    """Counts of operations, and when what happened: seconds since the epoch. `underway` are encoded."""

    total: int
    published: int
    failed: int
    underway: int
    created: float
    started: float | None
    finished: float | None

    def job(self, name: str, problem: str | None) -> Job:
        """As a client sees it; `problem` is what holds the collection up."""
        queued = self.total - self.published - self.failed
        seconds = (self.finished or time.time()) - self.started if self.started else 0.0
        return Job(
            id=name,
            state=_state(queued, self.failed, self.started is not None),
            total=self.total,
            queued=queued,
            published=self.published,
            failed=self.failed,
            encoded=min(self.total, self.published + self.underway),
            created=self.created,
            rate=(self.published + self.underway) / seconds if seconds > 0 else 0.0,
            error=problem if queued else None,
        )


def _state(queued: int, failed: int, started: bool) -> State:
    if queued:
        return "running" if started else "queued"
    return "failed" if failed else "done"
