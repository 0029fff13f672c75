"""What is kept of every request once it is answered: counts, times, and a line in the log.

Routes are labelled by their template, never by the path asked for, and methods that are not HTTP's count as
one, so labels stay few whatever clients send; and a line names no document. Of those that are answered 429
the gate tells how many.
"""

import logging
import time
from collections.abc import MutableMapping
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.errors import BusyError
from service.log_lines import fields, noted
from service.metrics import Metrics
from service.tracing import QUIET_PATHS

METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})

log = logging.getLogger(__name__)


class Observed:
    """ASGI middleware; comes within `RequestId`, whose id its line bears, and before whatever refuses."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self.app = app
        self.metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        answer, began = _Answer(send), time.perf_counter()
        self.metrics.in_flight.inc()
        try:
            await self.app(scope, receive, answer.send)
        finally:
            self.metrics.in_flight.dec()
            self._keep(scope, answer, time.perf_counter() - began)

    def _keep(self, scope: MutableMapping[str, Any], answer: "_Answer", seconds: float) -> None:
        method = scope["method"] if scope["method"] in METHODS else "other"
        route = getattr(scope.get("route"), "path", "none")
        self.metrics.requests.labels(method, route, str(answer.status)).inc()
        self.metrics.latency.labels(method, route).observe(seconds)
        quiet = scope["path"] in QUIET_PATHS or answer.status == BusyError.status
        level = logging.DEBUG if quiet else logging.INFO
        if log.isEnabledFor(level):
            said = fields(
                method=method,
                route=route,
                status=answer.status,
                ms=round(seconds * 1000, 1),
                bytes=answer.bytes,
                **noted(),
            )
            log.log(level, "request", extra=said)


class _Answer:
    """`send` of one request, noting what goes by."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.status = 500  # what the server answers when an exception passes through here
        self.bytes = 0

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
        else:
            self.bytes += len(message.get("body", b""))
        await self._send(message)
