"""Evaluations."""

from typing import Annotated

from pydantic import BeforeValidator, ConfigDict, Field
from typing_extensions import TypedDict

from service.limits import Limit, whole_number
from service.schema.common import Pipelines, Query, Request

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
