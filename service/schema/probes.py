"""What probes, limits and the root say."""

from typing import Any, Literal

from typing_extensions import TypedDict


class CheckView(TypedDict):
    """A check and what came of it: `ok`, `degraded` or `unready`, and why."""

    name: str
    status: Literal["ok", "degraded", "unready"]
    detail: str | None


class Status(TypedDict):
    """What a probe says."""

    status: str
    reasons: list[str]


class Readiness(Status):
    """What the probe of readiness says: every check, and the reasons of those that failed."""

    checks: list[CheckView]


class LimitsView(TypedDict):
    """What a request may ask for at most, and what it may name."""

    limits: dict[str, int]
    languages: list[str]
    encoders: list[str]
    sparse_encoders: list[str]
    in_context_models: list[str]
    idf_tables: list[str]
    scorers: list[str]
    repositories: list[str]
    pipelines: dict[str, list[dict[str, Any]]]


class About(TypedDict):
    """Where to look."""

    name: str
    openapi: str
    collections: str
    limits: str
    ready: str
    metrics: str
