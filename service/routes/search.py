"""Asking questions: one at a time or many in one request."""

import asyncio
import re
import time
from typing import Annotated

from fastapi import APIRouter, Header
from starlette.requests import Request
from starlette.responses import Response

from service import limits
from service.catalog import Collection
from service.error_shapes import Problem, problem
from service.errors import (
    BusyError,
    DeadlineError,
    GoneError,
    NotFoundError,
    UnavailableError,
    as_service_error,
)
from service.guards import unless_gone
from service.schema.search import BatchRequest, BatchResponse, SearchRequest, SearchResponse
from service.state import Here, Name, State, json_response, problems
from service.strict_json import StrictRoute

router = APIRouter(prefix="/v1/collections/{name}", tags=["search"], route_class=StrictRoute)

ERRORS = problems(NotFoundError, BusyError, UnavailableError)

CacheControl = Annotated[
    str, Header(description="`no-cache`: work it out anew, and leave nothing in a cache either.")
]


@router.post(
    "/search",
    response_model=SearchResponse,
    responses={**ERRORS, **problems(GoneError, DeadlineError)},
    summary="Search a collection",
)
async def search(
    name: Name, body: SearchRequest, request: Request, here: Here, cache_control: CacheControl = ""
) -> Response:
    """Answer a question with the best documents and an account of how they were found."""
    snapshot = here.catalog.get(name).at(body.generation)
    work = here.answers.search(snapshot, body, fresh=_fresh(cache_control))
    return json_response(await unless_gone(request, work))


@router.post(
    "/search:batch",
    response_model=BatchResponse,
    responses=ERRORS,
    summary="Search a collection several times",
)
async def search_batch(
    name: Name, body: BatchRequest, request: Request, here: Here, cache_control: CacheControl = ""
) -> Response:
    """Answer several questions at once; one that cannot be answered gets a problem in its place."""
    limits.check(body, here.settings.limits)
    collection = here.catalog.get(name)
    request_id = request.state.request_id
    fresh = _fresh(cache_control)
    work = asyncio.gather(*(_search(here, collection, each, fresh, request_id) for each in body.searches))
    return json_response({"results": await unless_gone(request, work)})


async def _search(
    here: State, collection: Collection, body: SearchRequest, fresh: bool, request_id: str
) -> SearchResponse | Problem:
    deadline = time.monotonic() + (body.timeout_ms or here.settings.timeout_ms) / 1000
    try:
        async with here.turns.one_of_several(deadline):
            left = max(1, round(1000 * (deadline - time.monotonic())))
            begun = body.model_copy(update={"timeout_ms": min(left, here.settings.limits.timeout_ms)})
            return await here.answers.search(collection.at(body.generation), begun, fresh=fresh)
    except Exception as error:  # as the application's handler would, but for one of many; bugs go there
        found = as_service_error(error)
        if found.status_code == 500:
            raise
        return problem(found, request_id)


def _fresh(cache_control: str) -> bool:
    return not {"no-cache", "no-store"}.isdisjoint(re.split(r"[\s,]+", cache_control.lower()))
