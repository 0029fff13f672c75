"""Progress of indexing as a bar, from whoever can say how far a job has come: a log or a service."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from rich.progress import Progress

from service.commands.common import CommandError

POLL_SECONDS = 0.25

JobState = Mapping[str, Any]  # as in the API: total, encoded, published, failed, state, error


@dataclass
class Watch:
    """Follows the jobs that are added to it. `ask` gives the state of one; `total` counts documents.

    Without a total the bar's grows with what is added.
    """

    progress: Progress
    ask: Callable[[str], JobState | None]
    total: int | None = None
    _pending: list[str] = field(default_factory=list)
    _added: int = 0
    _finished: int = 0
    _failed: int = 0

    def __post_init__(self) -> None:
        """Show an empty bar."""
        self._bar = self.progress.add_task("indexing", total=self.total)

    def add(self, job: str, documents: int) -> None:
        """Follow this job, of which so many more documents are known now."""
        self._added += documents
        if job not in self._pending:
            self._pending.append(job)
        self.update()

    def update(self) -> None:
        """Ask for the unfinished jobs and move the bar.

        Jobs are worked on in order, so nobody asks for those behind one that has not begun.
        """
        while self._pending and (state := self._ask(self._pending[0]))["state"] in ("done", "failed"):
            self._pending.pop(0)
            self._finished += state["total"]
            self._failed += state["failed"]
        encoded = 0
        for job in self._pending:
            state = self._ask(job)
            encoded += state["encoded"]
            if state["state"] == "queued":
                break
        total = self._added if self.total is None else self.total
        self.progress.update(self._bar, completed=self._finished + encoded, total=total)

    def wait(self) -> None:
        """Return when every job is finished; CommandError if operations failed or nothing can go on."""
        while self._pending:
            self.update()
            time.sleep(POLL_SECONDS if self._pending else 0)
        if self._failed:
            raise CommandError(
                f"{self._failed} documents could not be indexed; GET /v1/jobs?state=failed says why"
            )

    def _ask(self, job: str) -> JobState:
        state = self.ask(job)
        if state is None:
            raise CommandError(f"job {job} is not known any more")
        if state["error"]:
            self.progress.update(self._bar, description=f"indexing (held up: {state['error']})")
        return state
