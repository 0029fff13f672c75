"""The application: everything is made here from settings, started and stopped here, and nowhere else.

`create_app` does no work beyond building; parts start with the server and stop with it, in the reverse order.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
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
from starlette.types import ASGIApp

from indexer.queue.logs import Logs
from indexer.segment.manifest import DEFAULT_CROSS_ENCODER
from models.roles import Load, Role, loader
from service import openapi
from service.admission import Admission
from service.answer_headers import AnswerHeaders
from service.answers import Answers
from service.caches import Caches
from service.catalog import Catalog
from service.embedded import Embedded, command
from service.endpoints import Endpoints
from service.engine import Engine
from service.error_shapes import answer
from service.flow import Flow
from service.gate import Gate
from service.guards import BodyGuard, RequestId
from service.keys import Keys
from service.lookout import Lookout
from service.metrics import Metrics
from service.nets import Nets
from service.observed import Observed
from service.rates import Rates
from service.readings import readings
from service.repositories import Repositories
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
    snapshots,
    tei,
    vllm,
)
from service.scrub import Scrub
from service.settings import Settings
from service.state import State
from service.tracing import TELEMETRY
from service.turns import Turns
from service.warmup import Warmup
from service.workers import Workers

ROUTERS = (
    search.router,
    openai.router,
    documents.router,
    collections.router,
    snapshots.router,
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
    """FastAPI with our OpenAPI document, and our headers around what it answers by itself."""

    def openapi(self) -> dict[str, Any]:
        """Make the document once."""
        if not self.openapi_schema:
            self.openapi_schema = openapi.document(self, self.state.winnow.settings)
        return self.openapi_schema

    def build_middleware_stack(self) -> ASGIApp:
        """Around all of it: the handler of unforeseen errors is outside of what `add_middleware` adds."""
        return AnswerHeaders(super().build_middleware_stack(), self.state.winnow.draining)


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
        telemetry=TELEMETRY,
        generate_unique_id_function=_operation_id,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    app.state.winnow = state
    _add_routes(app, state.keys)
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
    metrics = Metrics()
    workers = Workers(settings.threads, metrics.worker_waits.observe)
    turns = Turns(workers.threads, settings.queue_ms / 1000, metrics.search_waits.observe)
    nets = Nets(settings, workers, load, metrics)
    logs = Logs(settings.redis())
    caches = Caches(settings)
    engine = Engine(settings, nets, workers, turns, metrics)
    remembering = nets.remembering(caches.encodings)
    catalog = Catalog(
        settings.data_dir, logs, watch_seconds=settings.watch_seconds, keep_seconds=settings.keep_seconds
    )
    scrub = Scrub(catalog, settings.scrub_bytes_per_second)
    own = settings.api_key
    return State(
        settings=settings,
        keys=Keys(settings.keys_path(), own.get_secret_value() if own else None),
        rates=Rates(settings.rate, settings.redis()),
        draining=asyncio.Event(),
        catalog=catalog,
        workers=workers,
        turns=turns,
        nets=nets,
        engine=engine,
        answers=Answers(
            Engine(settings, remembering, workers, turns, metrics), remembering, caches.results, plain=engine
        ),
        caches=caches,
        endpoints=Endpoints(settings, nets, workers),
        metrics=metrics,
        lookout=Lookout(catalog, settings.data_dir),
        warmup=Warmup(catalog, scrub.at_once, nets, _defaults(settings), warmed),
        scrub=scrub,
        repositories=Repositories(settings.repositories),
        indexer=_indexer(settings) if settings.worker == "embedded" else None,
    )


def _indexer(settings: Settings) -> Embedded:
    """The worker beside the service; the URL may hold a password, which a command line would show."""
    url = settings.redis()
    return Embedded(command(settings.data_dir), {} if url is None else {"WINNOW_REDIS_URL": url})


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
        stack.push_async_callback(state.rates.stop)
        stack.callback(state.repositories.close)
        stack.push_async_callback(state.nets.stop)
        stack.callback(state.catalog.logs.close)
        await state.caches.start()
        stack.push_async_callback(state.caches.stop)
        await state.catalog.start()
        stack.push_async_callback(state.catalog.stop)
        await state.lookout.start()
        stack.push_async_callback(state.lookout.stop)
        if state.indexer is not None:
            state.indexer.start()
            stack.push_async_callback(state.indexer.stop)
        state.warmup.start()
        stack.push_async_callback(state.warmup.stop)
        state.scrub.start()
        stack.push_async_callback(state.scrub.stop)
        yield


def _add_routes(app: FastAPI, keys: Keys) -> None:
    """Documented as secured only when they are."""
    key = [Security(HTTPBearer(auto_error=False))] if keys.asked() else []
    for router in ROUTERS:
        app.include_router(router, dependencies=[] if router is probes.router else key)


def _add_guards(app: FastAPI, state: State) -> None:
    """What is added last is met first."""
    settings = state.settings
    app.add_middleware(BodyGuard, most=settings.limits.body_bytes, seconds=settings.body_seconds)
    app.add_middleware(Admission, keys=state.keys, rates=state.rates)
    flow, deadline = Flow(), max(settings.limits.timeout_ms, settings.model_timeout_ms) / 1000
    app.add_middleware(
        Gate,
        flow=flow,
        most=settings.most_requests(),
        turns=state.turns,
        longest=settings.body_seconds + deadline,
        refused=state.metrics.refused,
    )
    app.add_middleware(Observed, metrics=state.metrics)
    app.add_middleware(RequestId)
    state.metrics.read(lambda: readings(state, flow))
