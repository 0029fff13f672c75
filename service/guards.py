"""What every request passes before a route sees it, as plain ASGI middleware.

Starlette's `BaseHTTPMiddleware` hides disconnects and buffers, so these wrap `receive` and `send` themselves:
a body is counted and timed while it streams, whatever its headers claimed, and a client that hangs up is seen
where the work is. Order, outermost first: `AnswerHeaders` (answer_headers.py), `RequestId`, `Observed`
(observed.py), `Gate` (gate.py), `Admission` (admission.py), `BodyGuard`.
"""

import asyncio
import random
import re
import time
from collections.abc import Awaitable
from typing import TypeVar

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.error_shapes import refusal
from service.errors import (
    ClientGoneError,
    MediaTypeError,
    ServiceError,
    SlowBodyError,
    TooLargeError,
)
from service.log_lines import working_on

T = TypeVar("T")

LINGER_SECONDS = 1.0
UNWATCHED_SECONDS = 0.005

_REQUEST_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")


class RequestId:
    """Takes the client's `X-Request-Id` where it is harmless, else makes one; sends it back."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        given = Headers(scope=scope).get("x-request-id", "")
        request_id = given if _REQUEST_ID.fullmatch(given) else f"{random.getrandbits(128):032x}"
        scope.setdefault("state", {})["request_id"] = request_id

        async def send_with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)["X-Request-Id"] = request_id
            await send(message)

        with working_on(request_id):
            return await self.app(scope, receive, send_with_id)


class BodyGuard:
    """Bounds the size of a body and the time it takes, and refuses compressed ones."""

    def __init__(self, app: ASGIApp, most: int, seconds: float) -> None:
        self.app = app
        self.most = most
        self.seconds = seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        headers = Headers(scope=scope)
        error = self._by_headers(headers)
        if error is not None:
            if "expect" not in headers:  # else the client waits for this answer before it sends
                await _linger(receive)
            return await refuse(error, scope, receive, send)
        return await self.app(scope, _Body(receive, self.most, self.seconds).receive, send)

    def _by_headers(self, headers: Headers) -> ServiceError | None:
        if headers.get("content-encoding", "identity").strip().lower() != "identity":
            return MediaTypeError("compressed bodies are not read: send it without Content-Encoding")
        length = headers.get("content-length", "0")
        if length.isdecimal() and int(length) > self.most:
            return _too_large(self.most)
        return None


class _Body:
    """`receive` of one request, counting bytes and time until the body is complete."""

    def __init__(self, receive: Receive, most: int, seconds: float) -> None:
        self._receive = receive
        self.most = most
        self.left = most
        self.until = time.monotonic() + seconds
        self.complete = False

    async def receive(self) -> Message:
        if self.complete:
            return await self._receive()
        try:
            async with asyncio.timeout(self.until - time.monotonic()):
                message = await self._receive()
        except TimeoutError:
            raise SlowBodyError("the body did not arrive in time", headers={"Connection": "close"}) from None
        self.complete = not message.get("more_body", False)
        self.left -= len(message.get("body", b""))
        if self.left < 0:
            if not self.complete:
                await _linger(self._receive)
            raise _too_large(self.most)
        return message


def _too_large(most: int) -> TooLargeError:
    return TooLargeError(
        f"the body is larger than the limit 'body_bytes' of {most} bytes (see /v1/limits): send it in parts",
        headers={"Connection": "close"},
    )


async def _linger(receive: Receive) -> None:
    """Throw away what the client is still sending, for a moment.

    Closing on unread data resets the connection, and the client would lose the answer that tells it why.
    """
    try:
        async with asyncio.timeout(LINGER_SECONDS):
            while (await receive()).get("more_body", False):
                pass
    except TimeoutError:
        pass


async def refuse(error: ServiceError, scope: Scope, receive: Receive, send: Send) -> None:
    """Answer with an error from outside the application."""
    await refusal(error, scope)(scope, receive, send)


async def unless_gone(request: Request, work: Awaitable[T]) -> T:
    """Await `work`, and cancel it with all it has queued when the client hangs up. Read the body first.

    Nobody watches during the first milliseconds: most searches end there, and a task costs a tenth of one.
    """
    patience = asyncio.timeout(None)
    watch = _Watch(request.receive, patience)
    try:
        async with patience, watch:
            return await work
    except TimeoutError:
        if patience.expired():
            raise ClientGoneError("the client hung up") from None
        raise


class _Watch:
    """While it lasts, ends the patience of whoever works for a client when the client is gone."""

    def __init__(self, receive: Receive, patience: asyncio.Timeout) -> None:
        self._receive = receive
        self._patience = patience
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(UNWATCHED_SECONDS, self._start)

    async def __aexit__(self, *error: object) -> None:
        self._timer.cancel()
        if self._task is not None:
            self._task.cancel()

    def _start(self) -> None:
        self._task = asyncio.create_task(self._watch())

    async def _watch(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self._patience.reschedule(asyncio.get_running_loop().time())
