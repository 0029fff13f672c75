"""The guards around an application that says what it received."""

import asyncio
from collections.abc import AsyncIterator, Iterable
from typing import Any

import httpx
import pytest
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.error_shapes import refusal
from service.errors import ClientGoneError, ServiceError
from service.guards import BodyGuard, RequestId, unless_gone


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    """Answers the length of the body; errors as the real application would."""
    try:
        body = await Request(scope, receive).body()
    except ServiceError as error:
        return await refusal(error, scope)(scope, receive, send)
    return await PlainTextResponse(str(len(body)))(scope, receive, send)


def client(app: ASGIApp) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://winnow")


def guarded(most: int = 100, seconds: float = 5.0) -> httpx.AsyncClient:
    return client(RequestId(BodyGuard(echo, most, seconds)))


async def chunks(parts: Iterable[bytes], pause: float = 0.0) -> AsyncIterator[bytes]:
    for part in parts:
        await asyncio.sleep(pause)
        yield part


async def test_a_body_up_to_the_limit_passes():
    response = await guarded().post("/", content=b"x" * 100)
    assert (response.status_code, response.text) == (200, "100")


@pytest.mark.parametrize(
    "body", [b"x" * 101, chunks([b"x" * 60, b"x" * 60])], ids=["announced", "chunked, without a length"]
)
async def test_a_larger_body_is_refused_and_the_limit_named(body: Any):
    response = await guarded().post("/", content=body)
    assert response.status_code == 413
    assert "'body_bytes' of 100 bytes" in response.json()["detail"]
    assert response.headers["content-type"] == "application/problem+json"
    assert response.headers["connection"] == "close"


async def test_a_large_body_is_refused_while_it_streams_however_it_was_announced():
    taken = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal taken
        while True:
            taken += 1
            yield b"x" * 10
            await asyncio.sleep(0.01)

    app = RequestId(BodyGuard(echo, 100, 5.0))
    response = await client(app).post("/", content=endless(), headers={"Content-Length": "1"})
    assert response.status_code == 413
    assert taken < 1000, "nobody waited for the end"


async def test_a_slow_body_is_given_up():
    response = await guarded(seconds=0.1).post("/", content=chunks([b"x"] * 50, 0.02))
    assert response.status_code == 408
    assert response.json()["code"] == "body_too_slow"


@pytest.mark.parametrize("encoding", ["gzip", "br", "gzip, identity"])
async def test_compressed_bodies_are_not_read(encoding: str):
    response = await guarded().post("/", content=b"x", headers={"Content-Encoding": encoding})
    assert response.status_code == 415


async def test_a_request_id_is_made_or_taken_over():
    made = await guarded().get("/")
    assert len(made.headers["x-request-id"]) == 32
    taken = await guarded().get("/", headers={"X-Request-Id": "trace-7.a"})
    assert taken.headers["x-request-id"] == "trace-7.a"


@pytest.mark.parametrize("given", ["", "a b", "x" * 129, "é", "<script>"])
async def test_a_harmful_request_id_is_replaced(given: str):
    response = await guarded().get("/", headers={"X-Request-Id": given.encode()})
    assert len(response.headers["x-request-id"]) == 32


def request(messages: list[Message]) -> Request:
    async def receive() -> Message:
        if messages:
            return messages.pop(0)
        return await asyncio.get_running_loop().create_future()

    return Request({"type": "http", "method": "POST", "headers": []}, receive)


async def test_work_ends_with_its_result_while_the_client_stays():
    assert await unless_gone(request([]), asyncio.sleep(0.01, "done")) == "done"


async def test_work_is_cancelled_when_the_client_goes():
    cancelled = asyncio.Event()

    async def work() -> None:
        try:
            await asyncio.sleep(10)
        finally:
            cancelled.set()

    with pytest.raises(ClientGoneError):
        await unless_gone(request([{"type": "http.disconnect"}]), work())
    await asyncio.wait_for(cancelled.wait(), 1)


async def test_an_error_of_the_work_comes_through():
    async def work() -> None:
        raise ClientDisconnect

    with pytest.raises(ClientDisconnect):
        await unless_gone(request([]), work())
