"""Log lines, as text for people or as JSON for programs, each with the request it was made for.

Every library here speaks through the standard library's logging, so a formatter is all that is needed.
What a request is called travels in a context variable, which tasks and worker threads inherit. The texts of
questions and documents are no part of any line.
"""

import json
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any, Literal

from service.tracing import trace_id

_notes: ContextVar[dict[str, str] | None] = ContextVar("notes", default=None)


@contextmanager
def working_on(request_id: str) -> Iterator[None]:
    """Until the end, lines carry this id, and `note` adds to what the access line says."""
    token = _notes.set({"request_id": request_id})
    try:
        yield
    finally:
        _notes.reset(token)


def note(name: str, *values: str) -> None:
    """Have the access line of the request under way, if any, say so, after what was noted before."""
    notes = _notes.get()
    if notes is not None and values:
        before = notes[name].split(",") if name in notes else []
        notes[name] = ",".join(dict.fromkeys((*before, *values)))


def noted() -> Mapping[str, str]:
    """What is known of the request under way: `request_id` first."""
    return _notes.get() or {}


def fields(**named: Any) -> dict[str, Any]:
    """Named values for a line: `log.info("slow", extra=fields(ms=1200))`."""
    return {"fields": named}


def to_stderr(form: Literal["text", "json"], level: str) -> None:
    """Have this process log in this form what is of this level or above, Python's warnings included."""
    handler = logging.StreamHandler()
    handler.setFormatter(JsonLines() if form == "json" else TextLines())
    logging.basicConfig(level=level.upper(), handlers=[handler])
    logging.captureWarnings(True)


class TextLines(logging.Formatter):
    """`TIME LEVEL LOGGER: MESSAGE name=value …`, and a stack on the lines after."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 (logging's name)
        """The line itself."""
        named = "".join(f" {name}={value}" for name, value in _named(record).items())
        return super().formatMessage(record) + named


class JsonLines(logging.Formatter):
    """An object a line, `exception` with the stack. Never fails: what JSON lacks becomes a string."""

    def format(self, record: logging.LogRecord) -> str:
        """One line."""
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **_named(record),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


def _named(record: logging.LogRecord) -> dict[str, Any]:
    """The line's own values, then whose work it is."""
    named: dict[str, Any] = dict(getattr(record, "fields", {}))
    if request_id := noted().get("request_id"):
        named["request_id"] = request_id
    if trace := trace_id():
        named["trace_id"] = trace
    return named
