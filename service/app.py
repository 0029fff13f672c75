"""The application: everything is made here from settings, started and stopped here, and nowhere else.

`create_app` does no work beyond building; parts start with the server and stop with it, in the reverse order.
"""

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from importlib.metadata import version
from typing import Any

from fastapi import FastAPI, Security
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from fastapi.security import HTTPBearer
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from indexer.segment.manifest import DEFAULT_CROSS_ENCODER
from models.roles import Load, Role, loader
from service import openapi
from service.catalog import Catalog
from service.embedded import Embedded, command
from service.endpoints import Endpoints
from service.engine import Engine
from service.error_shapes import answer
from service.gate import Flow, Gate
from service.guards import ApiKey, BodyGuard, RequestId
from service.metrics import Measured, Metrics, kv_cache
from service.net_metrics import Sample, queue
from service.nets import Nets
from service.routes import (
    cohere,
    collections,
    documents,
    evaluate,
    jina,
    jobs,
    openai,
    probes,
    search,
    tei,
    vllm,
)
from service.settings import Settings
from service.state import State
from service.warmup import Warmup
from service.workers import Workers

ROUTERS = (
    search.router,
    openai.router,
    documents.router,
    collections.router,
    evaluate.router,
    jobs.router,
    jina.router,
    tei.router,
    cohere.router,
    vllm.router,
    probes.router,
)

DESCRIPTION = """Documents in, the right passages out, with an honest account of how each was found.

Errors are `application/problem+json` (RFC 9457). Limits are listed at `/v1/limits`."""


class Winnow(FastAPI):
    """FastAPI with our OpenAPI document."""

    def openapi(self) -> dict[str, Any]:
        """Make the document once."""
        if not self.openapi_schema:
            self.openapi_schema = openapi.document(self, self.state.winnow.settings)
        return self.openapi_schema


def create_app(
    settings: Settings, *, load: Load | None = None, warmed: Callable[[], None] = lambda: None
) -> FastAPI:
    """Make the service, an ASGI application.

    `load` loads an encoder by name, from its weights by default; `warmed` is called when all is loaded that a
    search needs.
    """
    state = _assemble(settings, load or loader(settings.data_dir / "cache" / "models"), warmed)
    app = Winnow(
        title="Winnow",
        version=version("winnow-search"),
        description=DESCRIPTION,
        lifespan=_running,
        generate_unique_id_function=_operation_id,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    app.state.winnow = state
    _add_routes(app, settings)
    _add_guards(app, state)
    for error in (HTTPException, RequestValidationError, Exception):
        app.add_exception_handler(error, answer)
    app.add_exception_handler(405, _method_not_allowed)
    return app


def _operation_id(route: APIRoute) -> str:
    """The name of the function that answers: generated clients name theirs after it."""
    return route.name


async def _method_not_allowed(request: Request, error: Exception) -> Response:
    """405 with every method of the resource; Starlette names those of one route only."""
    known = [route for router in (request.app, *ROUTERS) for route in router.routes]
    path = request.scope["path"]
    matching = [route for route in known if isinstance(route, Route) and route.path_regex.match(path)]
    closest = max(len(route.path) for route in matching)
    methods = {method for route in matching if len(route.path) == closest for method in route.methods or ()}
    response = await answer(request, error)
    response.headers["Allow"] = ", ".join(sorted(methods))
    return response


def _assemble(settings: Settings, load: Load, warmed: Callable[[], None]) -> State:
    workers = Workers(settings.threads)
    metrics = Metrics()
    nets = Nets(settings, workers, load, metrics)
    catalog = Catalog(
        settings.data_dir, watch_seconds=settings.watch_seconds, keep_seconds=settings.keep_seconds
    )
    return State(
        settings=settings,
        catalog=catalog,
        workers=workers,
        nets=nets,
        engine=Engine(settings, nets, workers, metrics),
        endpoints=Endpoints(settings, nets, workers),
        metrics=metrics,
        warmup=Warmup(catalog, nets, _defaults(settings), warmed),
        indexer=Embedded(command(settings.data_dir)) if settings.worker == "embedded" else None,
    )


def _defaults(settings: Settings) -> dict[Role, str]:
    """The nets that are loaded at the start, whatever collections there are.

    A cross-encoder that was not asked for is loaded by the first request that wants it.
    """
    defaults: dict[Role, str] = {"dense": settings.encoder, "sparse": settings.sparse_encoder}
    if settings.cross_encoder in (None, DEFAULT_CROSS_ENCODER):
        return defaults
    return {**defaults, "cross": str(settings.cross_encoder)}


@asynccontextmanager
async def _running(app: FastAPI) -> AsyncIterator[None]:
    state: State = app.state.winnow
    async with AsyncExitStack() as stack:
        stack.callback(state.workers.close)
        stack.push_async_callback(state.nets.stop)
        await state.catalog.start()
        stack.push_async_callback(state.catalog.stop)
        if state.indexer is not None:
            state.indexer.start()
            stack.push_async_callback(state.indexer.stop)
        state.warmup.start()
        stack.push_async_callback(state.warmup.stop)
        yield


def _add_routes(app: FastAPI, settings: Settings) -> None:
    """Documented as secured only when they are."""
    key = [Security(HTTPBearer(auto_error=False))] if settings.api_key else []
    for router in ROUTERS:
        app.include_router(router, dependencies=[] if router is probes.router else key)


def _add_guards(app: FastAPI, state: State) -> None:
    """What is added last is met first."""
    settings = state.settings
    app.add_middleware(BodyGuard, most=settings.limits.body_bytes, seconds=settings.body_seconds)
    if settings.api_key is not None:
        app.add_middleware(ApiKey, key=settings.api_key.get_secret_value())
    flow, deadline = Flow(), max(settings.limits.timeout_ms, settings.model_timeout_ms) / 1000
    app.add_middleware(
        Gate,
        flow=flow,
        most=settings.requests,
        longest=settings.body_seconds + deadline,
        refused=state.metrics.refused,
    )
    app.add_middleware(Measured, metrics=state.metrics)
    app.add_middleware(RequestId)
    state.metrics.read(lambda: _gauges(state, flow))


def _gauges(state: State, flow: Flow) -> Iterator[Sample]:
    yield "winnow_open_requests", "Requests that are being worked on.", {}, flow.inside
    for collection in state.catalog:
        labels = {"collection": collection.name}
        snapshot = collection.current
        yield "winnow_generation", "Generation that is served.", labels, snapshot.generation
        yield "winnow_documents", "Documents that can be found.", labels, snapshot.statistics.documents
        behind = collection.log.last_position() - snapshot.manifest.position
        yield "winnow_queued_operations", "Operations not yet searchable.", labels, max(0, behind)
        pruned = sum(part.entry.pruned_rows for part in snapshot.parts)
        yield (
            "winnow_pruned_passages",
            "Passages without a sparse vector for want of quality.",
            labels,
            pruned,
        )
        yield "winnow_segments", "Segments of the generation.", labels, len(snapshot.parts)
    for role, batcher in state.nets.queues():
        yield from queue(role, batcher)
    for net in state.nets.rerankers():
        yield from kv_cache(net.net.name, net.cache.stats())
    if state.indexer is not None:
        yield "winnow_indexer_running", "1 while the embedded indexer runs.", {}, float(state.indexer.running)
        yield "winnow_indexer_restarts", "Times it had to be started again.", {}, state.indexer.restarts
