"""Jobs, and what they gave up."""

from typing import Any, Literal

from typing_extensions import TypedDict


class JobView(TypedDict):
    """How far a write has come. total = queued + published + failed; `encoded` counts published ones too."""

    id: str
    collection: str
    state: Literal["queued", "running", "done", "failed"]
    total: int
    queued: int
    encoded: int
    published: int
    failed: int
    created: float
    rate: float
    error: str | None


class DeadLetterView(TypedDict):
    """An operation that was given up."""

    position: int
    kind: str
    payload: Any
    error: str
    tries: int
    time: float


class JobDetail(JobView):
    """A job with its dead letters."""

    failures: list[DeadLetterView]


class JobList(TypedDict):
    """Jobs, newest first."""

    jobs: list[JobView]
