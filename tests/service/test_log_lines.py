"""Lines as people and programs read them, made by the formatters themselves."""

import json
import logging
import sys
from typing import Any

import pytest

from service.log_lines import JsonLines, TextLines, fields, note, noted, working_on
from service.workers import Workers


def record(message: str, *arguments: object, **extra: Any) -> logging.LogRecord:
    stack = extra.pop("exc", None)
    made = logging.LogRecord("service.x", logging.WARNING, "x.py", 1, message, arguments, stack)
    made.created = 0.25
    made.__dict__.update(extra)
    return made


def test_a_line_of_text_ends_with_named_values_and_the_request():
    with working_on("r1"):
        line = TextLines().format(record("slow %s", "search", **fields(ms=1200, pipeline="deep")))
    assert line.endswith(" WARNING service.x: slow search ms=1200 pipeline=deep request_id=r1")


def test_a_line_of_json_is_an_object():
    with working_on("r1"):
        line = JsonLines().format(record("slow %s", "search", **fields(ms=1200)))
    assert json.loads(line) == {
        "time": "1970-01-01T00:00:00.250+00:00",
        "level": "warning",
        "logger": "service.x",
        "message": "slow search",
        "ms": 1200,
        "request_id": "r1",
    }


def test_without_a_request_there_is_no_id():
    assert "request_id" not in json.loads(JsonLines().format(record("idle")))
    assert TextLines().format(record("idle")).endswith("service.x: idle")


def test_a_stack_is_within_the_object_and_after_the_text():
    try:
        raise ZeroDivisionError("by zero")
    except ZeroDivisionError:
        failed = record("failed", exc=sys.exc_info())
    assert json.loads(JsonLines().format(failed))["exception"].endswith("ZeroDivisionError: by zero")
    with working_on("r1"):
        first, *stack = TextLines().format(failed).splitlines()
    assert first.endswith("failed request_id=r1")
    assert stack[-1] == "ZeroDivisionError: by zero"


@pytest.mark.parametrize("value", ["two\nlines", "\ud800", object()], ids=["lines", "surrogate", "object"])
def test_json_never_fails_and_never_breaks_a_line(value: object):
    line = JsonLines().format(record("odd", **fields(value=value)))
    assert "\n" not in line
    line.encode()
    assert json.loads(line)["value"]


def test_notes_add_up_for_the_request_under_way():
    note("degraded", "late")  # nobody's
    with working_on("r1"):
        note("degraded", "late", "cross")
        note("degraded", "late")
        note("degraded")
        assert noted() == {"request_id": "r1", "degraded": "late,cross"}
    assert noted() == {}


async def test_worker_threads_know_whose_work_they_do():
    workers = Workers(1)
    with working_on("r1"):
        assert (await workers.run(noted))["request_id"] == "r1"
    assert await workers.run(noted) == {}
    workers.close()
