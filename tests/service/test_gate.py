"""The gate: who is let in, what the others are told, and that refusing costs a connection nothing."""

import asyncio
import json
import math
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client import CollectorRegistry, Counter
from starlette.responses import PlainTextResponse
from starlette.types import Receive, Scope, Send

from service.flow import Flow
from service.gate import Gate
from service.guards import RequestId
from service.metrics import Metrics
from service.observed import Observed
from service.turns import Turns
from tests.clocks import Clock
from tests.running import running
from tests.serving import serving


class House:
    """An application whose requests stay until the door is opened, behind a gate for two."""

    def __init__(
        self, flow: Flow | None = None, longest: float = 60, most: int = 2, turns: Turns | None = None
    ) -> None:
        self.door = asyncio.Event()
        self.asked = 0
        self.flow = flow or Flow()
        self.counted = CollectorRegistry()
        refused = Counter("refused", "Refused.", registry=self.counted)
        app = RequestId(Gate(self.stay, self.flow, most, turns or Turns(1), longest, refused))
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        self.client = httpx.AsyncClient(transport=transport, base_url="http://winnow")

    async def stay(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.asked += 1
        await self.door.wait()
        if scope["path"] == "/fails/search":
            raise RuntimeError
        await PlainTextResponse("done")(scope, receive, send)

    @asynccontextmanager
    async def full(self, path: str = "/v1/x/search") -> AsyncIterator[list[asyncio.Task[httpx.Response]]]:
        guests = [asyncio.create_task(self.client.post(path)) for _ in range(2)]
        while self.flow.inside < 2:
            await asyncio.sleep(0)
        yield guests
        self.door.set()
        await asyncio.wait(guests)
        assert self.flow.inside == 0


async def test_one_too_many_is_refused_and_let_in_when_there_is_room():
    house = House()
    async with house.full() as guests:
        refused = await house.client.post("/v1/x/search", headers={"X-Request-Id": "seven"})
        assert refused.status_code == 429
        assert refused.headers["retry-after"] == "1"
        assert refused.headers["x-request-id"] == "seven"
        assert house.asked == 2, "it was not worked on"
        assert house.counted.get_sample_value("refused_total") == 1
        house.door.set()
        assert [(await guest).text for guest in guests] == ["done", "done"]
        assert (await house.client.post("/v1/x/search")).status_code == 200


async def test_a_search_that_would_wait_for_too_long_is_refused_and_a_model_is_asked_all_the_same():
    clock = Clock()
    turns = Turns(1, 0.5, a_thread=1, clock=clock)
    async with turns.taken(math.inf):
        clock.now += 0.2  # a search takes as long
    house = House(most=64, turns=turns)
    async with house.full():  # they would be done after 0.4 s, and a third after 0.6
        refused = await house.client.post("/v1/x/search")
        assert refused.status_code == 429
        said = "another search would wait for too long, after 2 (WINNOW_QUEUE_MS)"
        assert refused.json()["detail"] == said
        assert (await house.client.post("/v1/x/search:batch")).status_code == 429
        embedding = asyncio.create_task(house.client.post("/v1/embeddings"))
        while house.asked < 3:
            await asyncio.sleep(0)
        house.door.set()
        assert (await embedding).status_code == 200
    assert (await house.client.post("/v1/x/search")).status_code == 200


async def test_refusals_are_told_together(caplog: pytest.LogCaptureFixture):
    house = House()
    async with house.full():
        for _ in range(5):
            await house.client.post("/v1/x/search")
    assert [(each.levelname, each.fields) for each in caplog.records if each.name == "service.gate"] == [
        ("WARNING", {"since_told": 1})
    ]


async def test_what_is_answered_429_has_no_line_of_its_own(caplog: pytest.LogCaptureFixture):
    async def refuse(scope: Scope, receive: Receive, send: Send) -> None:
        await PlainTextResponse("", 429 if scope["path"] == "/full" else 404)(scope, receive, send)

    caplog.set_level("INFO", "service.observed")
    transport = httpx.ASGITransport(Observed(refuse, Metrics()))
    async with httpx.AsyncClient(transport=transport, base_url="http://winnow") as client:
        await client.get("/full")
        assert caplog.records == []
        await client.get("/other")
    assert [each.fields["status"] for each in caplog.records if each.name == "service.observed"] == [404]


async def test_what_fails_or_is_given_up_leaves_too():
    house = House()
    async with house.full("/fails/search") as guests:
        guests[0].cancel()
        await asyncio.wait(guests[:1])
        assert house.flow.inside == 1


async def test_nobody_is_told_to_stay_away_for_longer_than_anything_takes():
    clock = Clock()
    flow = Flow(clock=clock)
    flow.enter()
    clock.now += 500
    flow.leave()
    house = House(flow, longest=30)
    async with house.full():
        assert (await house.client.post("/v1/x/search")).headers["retry-after"] == "30"


@pytest.mark.parametrize(
    "path", ["/", "/metrics", "/readyz", "/v1/collections/c/documents", "/v1/jobs/1/events"]
)
async def test_what_asks_no_net_is_answered_all_the_same(path: str):
    house = House()
    async with house.full():
        probe = asyncio.create_task(house.client.get(path))
        while house.asked < 3:
            await asyncio.sleep(0)
        house.door.set()
        assert (await probe).status_code == 200


SAID = "2 requests are being worked on, which is as many as may be (WINNOW_REQUESTS)"
SHAPES: dict[str, dict[str, Any]] = {
    "/v1/rerank": {"detail": SAID},
    "/v2/rerank": {"message": SAID},
    "/embed": {"error": SAID, "error_type": "Overloaded"},
    "/v1/embeddings": {
        "error": {"message": SAID, "type": "rate_limit_error", "param": None, "code": "overloaded"}
    },
    "/v1/collections/c/search": {
        "type": "urn:winnow:problem:overloaded",
        "title": "Overloaded",
        "status": 429,
        "detail": SAID,
        "code": "overloaded",
        "errors": [],
        "request_id": "seven",
        "retry_after_ms": 1000,
    },
}


@pytest.mark.parametrize("path", SHAPES)
async def test_it_is_said_as_clients_of_the_path_read_it(path: str):
    house = House()
    async with house.full():
        response = await house.client.post(path, headers={"X-Request-Id": "seven"})
    assert (response.status_code, response.json()) == (429, SHAPES[path])


async def test_requests_are_counted_whether_refused_or_open(tmp_path: Path):
    async with running(tmp_path, requests=1) as service:

        async def half() -> AsyncIterator[bytes]:
            yield b'{"input": '
            await service.ask("POST", "/v1/embeddings", 429, json={"input": "tide"})
            text = (await service.client.get("/metrics")).text
            assert "winnow_open_requests 1.0" in text
            assert "winnow_refused_requests_total 1.0" in text
            assert 'winnow_requests_total{method="POST",route="none",status="429"} 1.0' in text
            yield b'"tide", "model": "default"}'

        headers = {"Content-Type": "application/json"}
        await service.ask("POST", "/v1/embeddings", content=half(), headers=headers)


HALF = (
    b"POST /v1/embeddings HTTP/1.1\r\nHost: winnow\r\n"
    b"Content-Type: application/json\r\nContent-Length: 2\r\n\r\n{"
)


@pytest.mark.parametrize("size", [10, 2**20], ids=["small body", "body of many packets"])
def test_a_connection_is_as_good_as_before_when_its_request_was_refused(tmp_path: Path, size: int):
    body = json.dumps({"model": "default", "input": ["x" * 10] * (size // 10)})
    with serving(tmp_path, requests=1) as (address, _):
        host, port = address.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port))) as other:
            other.sendall(HALF)
            client = HTTPConnection(host, int(port))
            client.connect()
            mine = client.sock
            _wait_for(429, client)
            for _ in range(3):
                assert _status(client, "POST", "/v1/embeddings", body) == 429
        _wait_for(200, client)
        assert _status(client, "POST", "/v1/embeddings", '{"model": "default", "input": "tide"}') == 200
        assert client.sock is mine, "the connection was kept"
        client.close()


def _wait_for(status: int, client: HTTPConnection) -> None:
    until = time.monotonic() + 5
    while (found := _status(client, "GET", "/v1/models")) != status:
        assert time.monotonic() < until, found


def _status(client: HTTPConnection, method: str, path: str, body: str | None = None) -> int:
    client.request(method, path, body, {"Content-Type": "application/json"})
    response = client.getresponse()
    response.read()
    return response.status
