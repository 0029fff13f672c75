import errno
import logging

import orjson
import pytest
from starlette.requests import Request

from indexer.filters import FilterError
from indexer.queue.contract import LogUnavailable
from indexer.segment.arrays import CorruptFile
from service.error_shapes import answer, error_response
from service.errors import (
    BusyError,
    LimitError,
    ServiceError,
    as_service_error,
    field_errors,
)


@pytest.mark.parametrize(
    ("error", "status", "sentence"),
    [
        (FilterError("'x': nothing equals null"), 422, "filter: 'x': nothing equals null"),
        (LogUnavailable(errno.ENOSPC, "full"), 507, "the disk is full: nothing was written"),
        (OSError(errno.ENOSPC, "full"), 507, "the disk is full: nothing was written"),
        (OSError(errno.EDQUOT, "quota"), 507, "the disk is full: nothing was written"),
        (
            LogUnavailable(errno.EIO, "broken"),
            507,
            "the disk does not do its work: nothing was written; broken",
        ),
        (LogUnavailable(errno.EBUSY, "held"), 503, "the operations log does not answer"),
        (CorruptFile("dense.bin: too short"), 503, "the index is damaged: dense.bin: too short"),
        (LimitError("top_k", 10, 11), 422, "top_k is 11; the limit 'top_k' is 10 (see /v1/limits)"),
        (ZeroDivisionError("secret"), 500, "something went wrong inside the service"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else None,
)
def test_every_error_has_a_status_and_a_sentence(error: Exception, status: int, sentence: str):
    found = as_service_error(error)
    assert found.status_code == status
    assert found.detail.startswith(sentence)


async def test_an_unforeseen_error_is_logged_and_keeps_its_words_to_itself(caplog: pytest.LogCaptureFixture):
    request = Request({"type": "http", "path": "/", "state": {"request_id": "r1"}})
    with caplog.at_level(logging.ERROR):
        response = await answer(request, ZeroDivisionError("secret"))
    assert response.status_code == 500
    assert b"secret" not in response.body
    assert caplog.records[0].__dict__["fields"] == {"request_id": "r1"}
    assert "ZeroDivisionError: secret" in caplog.text


@pytest.mark.parametrize(
    ("seconds", "header", "milliseconds"),
    [(0.25, "1", 250), (1.0, "1", 1000), (1.2, "2", 1200), (0.0, "1", 1)],
)
def test_retry_after_is_in_whole_seconds_and_exact_in_the_body(
    seconds: float, header: str, milliseconds: int
):
    response = error_response(BusyError("later", retry_after=seconds), "/", "r1")
    assert response.status_code == 429
    assert response.headers["retry-after"] == header
    assert orjson.loads(response.body)["retry_after_ms"] == milliseconds


def test_a_problem_has_every_member_of_its_schema():
    body = orjson.loads(error_response(ServiceError("why"), "/", "r1").body)
    assert body == {
        "type": "urn:winnow:problem:internal_error",
        "title": "Internal error",
        "status": 500,
        "detail": "why",
        "code": "internal_error",
        "errors": [],
        "request_id": "r1",
        "retry_after_ms": None,
    }


def error(*location: str | int, kind: str = "string_type") -> dict[str, object]:
    return {"type": kind, "loc": location, "msg": "Value error, it is wrong", "input": object()}


def test_fields_are_places_in_the_body_without_the_branches_of_unions():
    body = {"pipeline": [{"stage": "bm25", "k": "x"}]}
    (found,) = field_errors([error("body", "pipeline", "stages", 0, "bm25", "k")], body)
    assert found == {"index": None, "field": "pipeline.0.k", "code": "string_type", "detail": "it is wrong"}


def test_a_missing_field_is_named():
    (found,) = field_errors([error("body", "many", 1, "text", kind="missing")], [{}, {"id": "a"}])
    assert (found["index"], found["field"]) == (1, "text")


def test_a_parameter_is_named_by_its_name():
    (found,) = field_errors([error("query", "timeout_ms")], None)
    assert found["field"] == "timeout_ms"


def test_an_empty_list_is_not_blamed_for_its_wrong_items():
    errors = [error("body", "pipeline", 0), error("body", "pipeline", kind="too_short")]
    assert [each["field"] for each in field_errors(errors, {"pipeline": [1]})] == ["pipeline.0"]
