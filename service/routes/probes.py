"""Is it alive, is it ready, what does it do, what may one ask of it."""

import asyncio

from fastapi import APIRouter
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.responses import PlainTextResponse, Response

from indexer.segment.analyzer import LANGUAGES
from service.errors import UnreadyError
from service.health import checked
from service.schema.probes import About, LimitsView, Readiness, Status
from service.state import Here, json_response, problems
from service.strict_json import StrictRoute

router = APIRouter(tags=["service"], route_class=StrictRoute)


@router.get("/", response_model=About, summary="Where to look")
async def about(here: Here) -> Response:
    """Name, version, and the way to everything else."""
    return json_response(
        {
            "name": "winnow",
            "openapi": "/openapi.json",
            "collections": "/v1/collections",
            "limits": "/v1/limits",
            "ready": "/readyz",
            "metrics": "/metrics",
        }
    )


@router.get("/livez", response_model=Status, summary="Alive?")
async def livez() -> Response:
    """Answer as long as the process does."""
    return json_response({"status": "alive", "reasons": []})


@router.get("/readyz", response_model=Readiness, responses=problems(UnreadyError), summary="Ready?")
@router.get(
    "/health", name="health", response_model=Readiness, responses=problems(UnreadyError), summary="Healthy?"
)
async def readyz(here: Here) -> Response:
    """Ready means: searches are answered without compiling or loading anything first.

    `degraded` is ready with something amiss, said in `reasons` and by check: weights that are missing, a
    generation that cannot be opened, a damaged segment that is left out, a log that does not answer, an
    indexer that does not run. A service that is about to stop is not ready any more.
    """
    checks, reasons = checked(here)
    if any(check["status"] == "unready" for check in checks):
        raise UnreadyError(reasons, checks)
    status = "degraded" if reasons else "ready"
    return json_response({"status": status, "reasons": reasons, "checks": checks})


@router.get("/metrics", response_class=PlainTextResponse, summary="Metrics")
async def get_metrics(here: Here) -> Response:
    """Prometheus text format."""
    return Response(await asyncio.to_thread(here.metrics.exposition), media_type=CONTENT_TYPE_LATEST)


@router.get("/v1/limits", response_model=LimitsView, summary="Limits")
async def get_limits(here: Here) -> Response:
    """What a request may ask for at most, and what it may name."""
    settings, names = here.settings, here.settings.names()
    return json_response(
        {
            "limits": settings.limits.model_dump(),
            "languages": list(LANGUAGES),
            "encoders": names["encoder"],
            "sparse_encoders": names["sparse_encoder"],
            "in_context_models": names["in_context_model"],
            "idf_tables": names["sparse_idf"],
            "scorers": names["sparse_quality"],
            "repositories": sorted(settings.repositories),
            "pipelines": {
                name: [stage.model_dump() for stage in stages]
                for name, stages in here.engine.pipelines.items()
            },
        }
    )
