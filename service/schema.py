"""What goes over the wire: requests as Pydantic models, answers as typed dictionaries.

A request is checked once, strictly ("10" is not 10) and with nothing unknown. An answer is built by us and
needs no checking, so it is a dictionary with a declared shape: documented in OpenAPI, serialised as it is.
"""

from typing import Annotated, Any, Literal, NotRequired

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    Strict,
    Tag,
    WithJsonSchema,
    model_validator,
)
from pydantic.config import JsonDict
from typing_extensions import TypedDict

from indexer.collection import NAME
from indexer.document import Document, DocumentId
from indexer.segment.manifest import COMPONENTS, RETRIEVING, CollectionSchema, Component
from service.error_shapes import Problem
from service.limits import SCHEMA, Limit, whole_number, whole_numbers
from service.stages import Pipeline
from service.types import Account, Attended, Match, ReadWindow, Term

Shown = Literal["title", "text", "metadata", "passage"]
DEFAULT_FIELDS: tuple[Shown, ...] = ("title", "metadata", "passage")

JsonFilter = Annotated[dict[str, Any], WithJsonSchema({SCHEMA: "Filter"})]
"""A filter as `indexer.filters` reads it; its schema is written by hand in `openapi.py`."""

SomeFilter = Annotated[
    dict[str, Any], Field(min_length=1), WithJsonSchema({SCHEMA: "Filter", "minProperties": 1})
]


class Request(BaseModel):
    """Base of what clients send."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    _whole_numbers = model_validator(mode="before")(whole_numbers)


def _either(single: str, several: str) -> Discriminator:
    return Discriminator(lambda value: several if isinstance(value, list | tuple) else single)


Pipelines = Annotated[
    Annotated[str, Field(min_length=1, max_length=100), Tag("name")] | Annotated[Pipeline, Tag("stages")],
    _either("name", "stages"),
]


Query = Annotated[str, Field(min_length=1), Limit("query_bytes")]


_QUESTION: JsonDict = {"query": "how do tides form", "top_k": 3}
_SPELLED_OUT: JsonDict = {
    "query": "how do tides form",
    "pipeline": [
        {
            "stage": "fuse",
            "method": "rrf",
            "inputs": [[{"stage": "bm25", "k": 100}], [{"stage": "dense", "k": 100}]],
        },
        {"stage": "group"},
    ],
    "filter": {"year": {"gte": 2020}},
}


class SearchRequest(Request):
    """A question and how to answer it."""

    model_config = ConfigDict(json_schema_extra={"examples": [_QUESTION, _SPELLED_OUT]})

    query: Query = Field(description="The question, in plain words.")
    top_k: Annotated[int, Limit("top_k")] = Field(10, ge=1, description="Hits on this page.")
    offset: Annotated[int, Limit("candidates")] = Field(0, ge=0, description="Hits on the pages before.")
    pipeline: Pipelines | None = Field(
        None,
        description="A name or a list of stages; by default `hybrid`, or what the collection can do of it.",
    )
    filter: JsonFilter | None = Field(None, description="Which documents may be found.")
    fields: Annotated[tuple[Shown, ...], Strict(False)] = Field(
        DEFAULT_FIELDS, max_length=4, description="Parts of a document that a hit shows."
    )
    highlight: bool = Field(False, description="Show the passages' words that were asked for.")
    explain: bool = Field(
        False,
        description="Show what each term gave to a bm25 or sparse score, which tokens met in a late one, and "
        "which carried the attention of an in_context one, which parts of the text a cross one read.",
    )
    group_by: Literal["document", "passage"] = Field(
        "document",
        description="`passage` leaves out the pipeline's last `group`, so one document may come often.",
    )
    timeout_ms: Annotated[int, Limit("timeout_ms")] | None = Field(
        None, ge=1, description="Deadline, counted from when the request was read."
    )
    generation: int | None = Field(
        None, ge=0, description="Search this generation (of an earlier answer), so that pages fit together."
    )


class BatchRequest(Request):
    """Several searches of one collection."""

    searches: Annotated[tuple[SearchRequest, ...], Strict(False), Limit("searches")] = Field(min_length=1)


Grade = Annotated[int, Field(ge=-1000, le=1000), BeforeValidator(whole_number)]


class EvaluateRequest(Request):
    """Judged queries of your own, and the pipelines to measure on them."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "queries": {"q1": "how do tides form"},
                    "qrels": {"q1": {"tides": 1}},
                    "pipelines": {"words": "bm25", "both": "hybrid"},
                }
            ]
        }
    )

    queries: Annotated[dict[str, Query], Limit("queries")] = Field(min_length=1, description="Text by id.")
    qrels: dict[str, dict[str, Grade]] = Field(
        min_length=1, description="Grades by query id and document id. Only judged queries are asked."
    )
    pipelines: Annotated[dict[str, Pipelines], Limit("pipelines")] | None = Field(
        None,
        min_length=1,
        description="Pipelines by the name they have in the answer; the others are compared with the first. "
        "By default all named ones that the collection can run.",
    )
    timeout_ms: Annotated[int, Limit("timeout_ms")] | None = Field(
        None, ge=1, description="Deadline of each search, by default the longest there is."
    )
    seed: int = Field(0, ge=0, le=2**32 - 1, description="Of the randomisation test.")


class DeleteByIds(Request):
    """Delete the documents of these ids."""

    ids: Annotated[tuple[DocumentId, ...], Strict(False), Limit("documents")] = Field(min_length=1)


class DeleteByFilter(Request):
    """Delete the documents that match; to delete all, drop the collection."""

    filter: SomeFilter


DeleteRequest = Annotated[
    Annotated[DeleteByIds, Tag("ids")] | Annotated[DeleteByFilter, Tag("filter")],
    Discriminator(lambda value: "filter" if isinstance(value, dict) and "filter" in value else "ids"),
]


class CollectionRequest(CollectionSchema):
    """How to index a collection; everything has a default."""

    model_config = ConfigDict(
        strict=True,
        json_schema_extra={"examples": [{}, {"language": "de", "components": ["bm25", "dense"]}]},
    )

    _whole_numbers = model_validator(mode="before")(whole_numbers)

    components: Annotated[tuple[Component, ...], Strict(False)] = Field(
        COMPONENTS, min_length=1, json_schema_extra=RETRIEVING
    )


Repository = Annotated[str, Field(min_length=1, max_length=100)]


class SnapshotRequest(Request):
    """Where to keep a backup, and how many."""

    repository: Repository = Field(description="One of those in /v1/limits.")
    name: Annotated[str, Field(pattern=f"^{NAME.pattern}$")] | None = Field(
        None, description="Of the backup; by default the time."
    )
    keep: int | None = Field(
        None, ge=1, description="Remove all backups of the collection but so many, the newest; else none."
    )


class RestoreRequest(Request):
    """Where the backup is, and what to make of it."""

    repository: Repository = Field(description="One of those in /v1/limits.")
    into: Annotated[str, Field(pattern=f"^{NAME.pattern}$")] | None = Field(
        None, description="Name of the collection to make or replace; by default the one that was backed up."
    )


Documents = Annotated[
    Annotated[Document, Tag("one")]
    | Annotated[list[Document], Field(min_length=1), Limit("documents"), Tag("many")],
    _either("one", "many"),
]


class Passage(TypedDict):
    """The part of a document a hit stands on: characters [start, end) of its text."""

    start: int
    end: int
    text: str


class Hit(TypedDict):
    """A document, or a passage of one. `scores` has the score of every retriever that found the passage,
    `explanation` what each term gave to those of bm25 and sparse, most first, which tokens met in late's, and
    by `in_context_…` which carried the attention, by `cross` which parts of the text were read.
    """

    id: str
    score: float
    scores: dict[str, float]
    passage: NotRequired[Passage]
    title: NotRequired[str]
    text: NotRequired[str]
    metadata: NotRequired[dict[str, Any]]
    highlights: NotRequired[list[str]]
    explanation: NotRequired[dict[str, list[Term] | list[Match] | list[Attended] | list[ReadWindow]]]


class SearchResponse(TypedDict):
    """Hits, best first, and the account of how they were found.

    `cached`: they were found for an equal request before, and `stages` is the account of that; `took_ms` is
    this request's.
    """

    hits: list[Hit]
    stages: list[Account]
    degraded: list[str]
    generation: int
    cached: bool
    took_ms: float


class BatchResponse(TypedDict):
    """An answer, or a problem, for each search in order."""

    results: list[SearchResponse | Problem]


class LatencyView(TypedDict):
    """Percentiles in milliseconds."""

    p50_ms: float
    p95_ms: float


class MeasuredView(TypedDict):
    """One pipeline over all judged queries.

    `p_values` are of the difference to the first pipeline (two-sided paired randomisation test, not corrected
    for several comparisons), null for the first itself.
    """

    measures: dict[str, float]
    latency: LatencyView
    stages: dict[str, LatencyView]
    degraded: int
    p_values: dict[str, float] | None


class EvaluateResponse(TypedDict):
    """Effectiveness beside latency."""

    generation: int
    queries: int
    pipelines: dict[str, MeasuredView]


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


class Superseded(TypedDict):
    """A document that another of the same id came after in the same request; counted from 0, lines from 1."""

    index: int
    id: str


class Rejected(TypedDict):
    """A line that was not taken, counted from 1."""

    line: int
    code: str
    detail: str


class WriteResponse(TypedDict):
    """What was written down durably, and the job that makes it searchable."""

    accepted: int
    superseded: list[Superseded]
    rejected: list[Rejected]
    job: JobView


class DocumentView(TypedDict):
    """A document as it was accepted."""

    id: str
    title: str
    text: str
    metadata: dict[str, Any]


class SegmentView(TypedDict):
    """One segment of a collection. `pruned_rows` are passages without a sparse vector for want of quality."""

    name: str
    rows: int
    dead_rows: int
    pruned_rows: int
    documents: int
    bytes: int


class CollectionView(TypedDict):
    """A collection, its counts of what is alive, and how far it is behind its log."""

    name: str
    schema: dict[str, Any]
    generation: int
    documents: int
    passages: int
    queued: int | None
    segments: list[SegmentView]


class CollectionList(TypedDict):
    """All collections, by name."""

    collections: list[CollectionView]


class SnapshotView(TypedDict):
    """A backup of one generation. `bytes` counts files that it shares with other backups too."""

    name: str
    collection: str
    created: float
    generation: int
    documents: int
    passages: int
    bytes: int
    schema: dict[str, Any]


class SnapshotMade(SnapshotView):
    """A new backup, what had to be copied for it, and the backups that were removed for being too old."""

    copied_bytes: int
    removed: list[str]


class DamagedSnapshot(TypedDict):
    """A backup that cannot be read, and why."""

    name: str
    detail: str


class SnapshotList(TypedDict):
    """Backups of a collection, newest first."""

    snapshots: list[SnapshotView]
    damaged: list[DamagedSnapshot]


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
