"""Searches and their answers."""

from typing import Annotated, Any, Literal, NotRequired

from pydantic import ConfigDict, Field, Strict
from pydantic.config import JsonDict
from typing_extensions import TypedDict

from service.error_shapes import Problem
from service.limits import Limit
from service.schema.common import JsonFilter, Pipelines, Query, Request
from service.types import Account, Attended, Match, ReadWindow, Term

Shown = Literal["title", "text", "metadata", "passage"]
DEFAULT_FIELDS: tuple[Shown, ...] = ("title", "metadata", "passage")

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
        description="A name or a list of stages; by default `balanced`, or what the collection can do of it.",
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
