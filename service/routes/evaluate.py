"""Measuring pipelines on one's own judgments, where one's documents are."""

import asyncio
import time
from collections.abc import Mapping
from dataclasses import asdict

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from service import limits
from service.errors import (
    BusyError,
    ComponentError,
    DeadlineError,
    InvalidError,
    NotConfiguredError,
    NotFoundError,
    UnavailableError,
)
from service.evaluation import DEPTH, Answer, answer_of, compare
from service.guards import unless_gone
from service.schema.evaluate import EvaluateRequest, EvaluateResponse
from service.schema.search import SearchRequest
from service.snapshot import Snapshot
from service.stages import Pipeline
from service.state import Here, Name, State, json_response, problems
from service.strict_json import StrictRoute

router = APIRouter(prefix="/v1/collections/{name}", tags=["evaluation"], route_class=StrictRoute)


@router.post(
    "/evaluate",
    response_model=EvaluateResponse,
    responses=problems(NotFoundError, BusyError, UnavailableError),
    summary="Evaluate pipelines",
)
async def evaluate(name: Name, body: EvaluateRequest, request: Request, here: Here) -> Response:
    """Ask every judged query of every pipeline, by turns, and compare nDCG@10, MRR@10, Recall@100 and MAP.

    Judged queries without an answer, or with one that came too late, count 0. All of it is asked of one
    generation.
    """
    limits.check(body, here.settings.limits)
    unknown = body.qrels.keys() - body.queries.keys()
    if unknown:
        raise InvalidError(f"qrels judge {sorted(unknown)[0]!r}, which is not among the queries")
    snapshot = here.catalog.get(name).current
    return json_response(await unless_gone(request, _measure(here, snapshot, body)))


async def _measure(here: State, snapshot: Snapshot, body: EvaluateRequest) -> EvaluateResponse:
    pipelines = body.pipelines or _runnable(here, snapshot)
    for pipeline in pipelines.values():  # none is run if one cannot be
        here.engine.plan(snapshot.schema, _request(here, "?", pipeline, body.timeout_ms))
    answers: dict[str, dict[str, Answer]] = {name: {} for name in pipelines}
    for query in body.qrels:
        for name, pipeline in pipelines.items():
            asked = _request(here, body.queries[query], pipeline, body.timeout_ms)
            answers[name][query] = await _answer(here, snapshot, asked)
    reports = await asyncio.to_thread(compare, body.qrels, answers, seed=body.seed)
    return {
        "generation": snapshot.generation,
        "queries": len(body.qrels),
        "pipelines": {name: asdict(report) for name, report in reports.items()},  # type: ignore[misc]
    }


async def _answer(here: State, snapshot: Snapshot, asked: SearchRequest) -> Answer:
    """One that came too late counts as one without hits."""
    began = time.perf_counter()
    try:
        return answer_of(await here.engine.search(snapshot, asked))
    except DeadlineError:
        return Answer(ids=(), took_ms=(time.perf_counter() - began) * 1000, degraded=True)


def _runnable(here: State, snapshot: Snapshot) -> Mapping[str, str]:
    """The named pipelines that this collection has the components for, and this service the nets."""
    found = {}
    for name in here.engine.pipelines:
        try:
            here.engine.plan(snapshot.schema, SearchRequest(query="?", pipeline=name))
        except (ComponentError, NotConfiguredError):
            continue
        found[name] = name
    return found


def _request(here: State, query: str, pipeline: str | Pipeline, timeout_ms: int | None) -> SearchRequest:
    most = here.settings.limits
    return SearchRequest(
        query=query,
        pipeline=pipeline,
        top_k=min(DEPTH, most.top_k),
        fields=(),
        timeout_ms=timeout_ms or most.timeout_ms,
    )
