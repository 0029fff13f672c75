"""What is kept of a request: its line, its counts, and nothing that was asked."""

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from service.log_lines import JsonLines
from tests.nets import WordOverlapEncoder, loading
from tests.running import Service, running

Lines = Callable[[str], list[dict[str, Any]]]
PATH = "/v1/collections/c/search"


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture) -> Lines:
    """The lines that a logger has said so far, as programs read them."""
    caplog.set_level(logging.WARNING, "httpx")  # the test's own client
    caplog.set_level(logging.INFO)
    caplog.handler.setFormatter(JsonLines())
    return lambda name: [
        line for line in map(json.loads, caplog.text.splitlines()) if line["logger"] == f"service.{name}"
    ]


async def test_a_request_is_one_line(service: Service, lines: Lines):
    await service.make()
    await service.put([{"id": "a", "text": "moon"}])
    headers = {"X-Request-Id": "r1"}
    asked = {"query": "moon", "pipeline": "bm25"}
    response = await service.client.post(PATH, json=asked, headers=headers)
    line = lines("observed")[-1]
    assert line.pop("ms") > 0
    assert line.pop("time")
    assert line == {
        "level": "info",
        "logger": "service.observed",
        "message": "request",
        "method": "POST",
        "route": "/v1/collections/{name}/search",
        "status": 200,
        "bytes": len(response.content),
        "request_id": "r1",
    }


async def test_neither_ids_nor_paths_nor_questions_are_in_a_line(
    service: Service, lines: Lines, caplog: pytest.LogCaptureFixture
):
    await service.make()
    await service.put([{"id": "private", "text": "private"}])
    await service.search("private")
    await service.client.get("/v1/collections/c/documents/private")
    await service.client.get("/private")
    routes = [line["route"] for line in lines("observed")]
    assert routes[-2:] == ["/v1/collections/{name}/documents/{document_id:path}", "none"]
    assert "private" not in caplog.text


async def test_what_was_left_out_is_said(tmp_path: Path, lines: Lines):
    def missing(role: str, name: str) -> Any:
        raise OSError("no weights")

    async with running(tmp_path, load=missing) as service:
        await service.make()
        await service.put([{"id": "a", "text": "moon"}])
        await service.search("moon", pipeline="hybrid")
    assert lines("observed")[-1]["degraded"] == "dense"


async def test_probes_are_only_for_debugging(
    service: Service, lines: Lines, caplog: pytest.LogCaptureFixture
):
    for path in ("/livez", "/readyz", "/metrics"):
        await service.client.get(path)
    assert lines("observed") == []
    caplog.set_level(logging.DEBUG)
    await service.client.get("/livez")
    assert len(lines("observed")) == 1


async def test_a_bug_is_logged_with_its_request_and_counted(
    service: Service, lines: Lines, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(service.state.catalog, "get", lambda name: 1 / 0)
    await service.client.get("/v1/collections/c", headers={"X-Request-Id": "r1"})
    (bug,) = lines("error_shapes")
    assert (bug["request_id"], bug["level"]) == ("r1", "error")
    assert bug["exception"].endswith("ZeroDivisionError: division by zero")
    assert lines("observed")[-1]["status"] == 500


async def test_methods_that_clients_make_up_count_as_one(service: Service):
    for method in ("BREW", "WHEN"):
        await service.client.request(method, "/livez")
    text = (await service.client.get("/metrics")).text
    assert 'winnow_requests_total{method="other",route="/livez",status="405"} 2.0' in text
    assert "BREW" not in text


async def test_requests_in_flight_are_counted_until_they_are_answered(service: Service):
    for _ in range(2):
        text = (await service.client.get("/metrics")).text
        assert "winnow_requests_in_flight 1.0" in text, "the one that asks"


async def test_a_slow_search_is_told_without_its_words(
    tmp_path: Path, lines: Lines, caplog: pytest.LogCaptureFixture
):
    async with running(tmp_path, slow_search_ms=1) as service:
        await service.make()
        await service.put([{"id": "a", "text": "moon"}])
        await service.search("private moon", pipeline="balanced")
    (said,) = lines("kept")
    assert said["level"] == "warning"
    assert (said["collection"], said["pipeline"], said["outcome"]) == ("c", "balanced", "complete")
    assert [each.split(":")[0] for each in said["stages"]] == ["fuse", "fast_forward", "group"]
    assert "['bm25: " in said["stages"][0]
    assert "private" not in caplog.text


async def test_no_search_is_slow_where_none_is_to_be(tmp_path: Path, lines: Lines):
    async with running(tmp_path, slow_search_ms=0) as service:
        await service.make()
        await service.search("moon", pipeline="bm25")
    assert lines("kept") == []


class Fails(WordOverlapEncoder):
    """Fails over texts of one word."""

    def forward(self, tokens: Any) -> Any:
        if any(len(each) == 3 for each in tokens):  # the two around each text count
            raise ZeroDivisionError
        return super().forward(tokens)


async def test_what_works_for_many_requests_speaks_for_none(tmp_path: Path, lines: Lines):
    """The first request that wants a net has it loaded; the owner of its queue lives on after that."""
    async with running(tmp_path, load=loading(dense=Fails())) as service:
        await service.make()
        await service.put([{"id": "a", "text": "moon sea"}])
        await service.search("moon", pipeline="dense", status=503)
    (failed,) = lines("batcher")
    assert "request_id" not in failed
    assert all(line["request_id"] for line in lines("observed"))
