"""The durable log of operations: what a write becomes before it is acknowledged, and what the worker reads.

One log per collection. Positions grow and are never reused, so that a manifest can say "everything up to
here is in this generation" and a crash replays the rest. A log keeps an operation until the worker says
that a durable manifest covers it; jobs count operations for those who wait; operations that cannot be
applied become dead letters.

Every implementation passes the suite of `tests/contract/test_log.py`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import orjson

from indexer.document import Document

Kind = Literal["upsert", "delete", "delete_where"]
State = Literal["queued", "running", "done", "failed"]


class LogUnavailable(OSError):  # noqa: N818 (it says a state, as BlockingIOError's kin do)
    """The log could not be read or written; nothing was half-written. `errno` ENOSPC: the disk is full."""


@dataclass(frozen=True, slots=True)
class Operation:
    """One change. The payload is a document's JSON, an id in UTF-8, or a filter's JSON, by kind."""

    kind: Kind
    payload: bytes


def upsert(document: Document) -> Operation:
    """Put the document in, in place of one of the same id."""
    return Operation("upsert", document.to_json())


def delete(document_id: str) -> Operation:
    """Take the document of this id out, if it is there."""
    return Operation("delete", document_id.encode())


def delete_where(raw_filter: Mapping[str, Any]) -> Operation:
    """Take every document out that matches when the operation's turn comes."""
    return Operation("delete_where", orjson.dumps(raw_filter))


@dataclass(frozen=True, slots=True)
class Entry:
    """An operation in its place in the log."""

    position: int
    job: str
    operation: Operation


@dataclass(frozen=True, slots=True)
class Trial:
    """A batch that was begun: `size` operations, the last at position `last`, tried `tries` times before."""

    last: int
    size: int
    tries: int = 0


@dataclass(frozen=True, slots=True)
class Job:
    """How far the operations of one request have come.

    total = queued + published + failed. `encoded` counts operations whose documents are encoded, published
    ones included. `created` is in seconds since the epoch, `rate` in operations per second since work on it
    began (0.0 before). State `failed` means: nothing is left to do and some operations are, or were, dead
    letters. `error` says what holds the whole collection up, if anything does.
    """

    id: str
    state: State
    total: int
    queued: int
    published: int
    failed: int
    encoded: int
    created: float
    rate: float
    error: str | None


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """An operation given up: its place when it was, how often it was tried, and the last error."""

    position: int
    job: str
    operation: Operation
    error: str
    tries: int
    time: float


class Log(Protocol):
    """Every method blocks and is safe in any thread and process; every one may raise LogUnavailable."""

    place: str
    """Where it is, for messages."""

    def append(self, operations: Sequence[Operation], job: str | None = None) -> tuple[str, int]:
        """Add operations, all or none, durable on return; give the job and the last position.

        They count for `job`, which is made if there is none of that name, or for a new job.
        """
        ...

    def read(self, after: int, most_operations: int, most_bytes: int) -> list[Entry]:
        """Return the next entries past a position, in order; at least one if any, whatever its size."""
        ...

    def last_position(self) -> int:
        """Return the position given last, pruned or not; 0 before the first."""
        ...

    def prune(self, applied: int) -> None:
        """Forget operations up to `applied`, which a durable manifest covers, and count them as published."""
        ...

    def job(self, job: str) -> Job | None:
        """Return one job; None if there is none or if it was finished long ago."""
        ...

    def jobs(self, state: State | None = None) -> list[Job]:
        """Return jobs, newest first."""
        ...

    def report_encoded(self, encoded: Mapping[str, int]) -> None:
        """Say how many operations of each job are encoded and not yet pruned; may be lost in a power cut."""
        ...

    def report_problem(self, problem: str | None) -> None:
        """Set or clear the sentence that every unfinished job shows as its error."""
        ...

    def trial(self) -> Trial | None:
        """Return the trial begun last, unless a prune has covered it since or it was withdrawn."""
        ...

    def begin(self, trial: Trial | None) -> None:
        """Note what is about to be tried, for whoever comes after a sudden death; None withdraws the note."""
        ...

    def bury(self, position: int, error: str, tries: int) -> None:
        """Turn one operation into a dead letter; durable on return."""
        ...

    def dead_letters(self, job: str | None = None) -> list[DeadLetter]:
        """Return dead letters by position, of all jobs or of one."""
        ...

    def retry(self, positions: Sequence[int]) -> int:
        """Append these dead letters again under their jobs, in one transaction; give how many there were."""
        ...

    def drop(self, positions: Sequence[int]) -> int:
        """Forget these dead letters for good; give how many there were. Jobs still count them failed."""
        ...

    def destroy(self) -> None:
        """Remove what the collection's directory does not hold, when the collection is dropped."""
        ...

    def close(self) -> None:
        """Let go of the files. Other methods may not be called after it."""
        ...
