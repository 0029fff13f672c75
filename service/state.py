"""Everything one application consists of, and how a route gets at it."""

from asyncio import Event
from dataclasses import dataclass
from typing import Annotated, Any

import orjson
from fastapi import Depends, Path
from starlette.requests import Request
from starlette.responses import Response

from indexer.collection import NAME
from service.answers import Answers
from service.caches import Caches
from service.catalog import Catalog
from service.embedded import Embedded
from service.endpoints import Endpoints
from service.engine import Engine
from service.errors import ServiceError
from service.keys import Keys
from service.lookout import Lookout
from service.metrics import Metrics
from service.nets import Nets
from service.rates import Rates
from service.repositories import Repositories
from service.scrub import Scrub
from service.settings import Settings
from service.turns import Turns
from service.warmup import Warmup
from service.workers import Workers


@dataclass(frozen=True)
class State:
    """The parts of a running service."""

    settings: Settings
    keys: Keys
    rates: Rates
    draining: Event  # set when the service is about to stop
    catalog: Catalog
    workers: Workers
    turns: Turns
    nets: Nets
    engine: Engine
    answers: Answers
    caches: Caches
    endpoints: Endpoints
    metrics: Metrics
    lookout: Lookout
    warmup: Warmup
    scrub: Scrub
    repositories: Repositories
    indexer: Embedded | None


async def state_of(request: Request) -> State:
    """The parts of the application a request came to."""
    state: State = request.app.state.winnow
    return state


Here = Annotated[State, Depends(state_of)]
Name = Annotated[str, Path(pattern=f"^{NAME.pattern}$", description="Name of a collection.")]


def json_response(value: Any, status: int = 200, **headers: str) -> Response:
    """An answer of ours, which needs no validation on its way out."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Response(
        orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY), status, named, media_type="application/json"
    )


def problems(*errors: type[ServiceError]) -> dict[int | str, dict[str, Any]]:
    """How a route documents the errors it gives besides those that every route gives."""
    found: dict[int | str, dict[str, Any]] = {}
    for error in errors:
        found.setdefault(error.status, {"description": error.title})
    return found
