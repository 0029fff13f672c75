"""Is it alive, is it ready, what does it do, what may one ask of it."""

from fastapi import APIRouter
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.responses import PlainTextResponse, Response

from indexer.segment.analyzer import LANGUAGES
from service.errors import UnavailableError
from service.schema import About, LimitsView, Status
from service.state import Here, State, json_response, problems
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


@router.get("/readyz", response_model=Status, responses=problems(UnavailableError), summary="Ready?")
@router.get(
    "/health", name="health", response_model=Status, responses=problems(UnavailableError), summary="Healthy?"
)
async def readyz(here: Here) -> Response:
    """Ready means: searches are answered without compiling or loading anything first.

    `degraded` is ready with something amiss, said in `reasons`: weights that are missing, a generation that
    cannot be opened, an indexer that does not run.
    """
    if here.warmup.pending:
        raise UnavailableError(f"starting: {'; '.join(here.warmup.pending)}", retry_after=1.0)
    reasons = _reasons(here)
    return json_response({"status": "degraded" if reasons else "ready", "reasons": reasons})


@router.get("/metrics", response_class=PlainTextResponse, summary="Metrics")
async def get_metrics(here: Here) -> Response:
    """Prometheus text format."""
    return Response(here.metrics.exposition(), media_type=CONTENT_TYPE_LATEST)


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
            "pipelines": {
                name: [stage.model_dump() for stage in stages]
                for name, stages in here.engine.pipelines.items()
            },
        }
    )


def _reasons(here: State) -> list[str]:
    reasons = [f"collection {name}: {error}" for name, error in here.catalog.errors.items()]
    reasons += [f"encoder {name}: {error}" for name, error in here.nets.errors.items()]
    if here.indexer is not None and not here.indexer.running:
        reasons.append("the indexer is not running; it is being started again")
    return reasons
