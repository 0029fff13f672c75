"""Spans of OpenTelemetry: of stages and forwards here, of requests by FastAPI, which takes `traceparent`.

Nothing is traced, and a stage costs a look-up more, unless the extra `otel` is installed and the standard
variables name a collector (`OTEL_EXPORTER_OTLP_ENDPOINT`), or the process has a tracer provider of its own.
"""

import time
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext

from fastapi.telemetry import TelemetryConfig
from opentelemetry import trace
from opentelemetry.trace import INVALID_SPAN, Link, Span, Status, StatusCode

QUIET_PATHS = frozenset({"/livez", "/readyz", "/health", "/metrics"})
"""What is asked every few seconds by machines: no spans, and access lines only at debug."""

TELEMETRY: TelemetryConfig = {
    "auto_configure": True,
    "metrics": False,  # Prometheus reads them
    "logs": False,  # messages of exceptions may quote what was sent
    "operation_spans": False,
    "exclude": lambda scope: scope.get("path") in QUIET_PATHS,
}
"""What FastAPI is asked to do of it."""

_OFF = nullcontext(INVALID_SPAN)


def here() -> Span:
    """The span under way; where nothing is traced one that stands for none."""
    return trace.get_current_span()


def trace_id() -> str | None:
    """What the trace under way is called, if there is one."""
    context = here().get_span_context()
    return trace.format_trace_id(context.trace_id) if context.is_valid else None


def step(name: str) -> AbstractContextManager[Span]:
    """A span within the one under way."""
    if not here().is_recording():
        return _OFF
    return trace.get_tracer("winnow").start_as_current_span(name)


def forward(
    net: str,
    callers: Iterable[Span],
    seconds: float,
    numbers: Mapping[str, int],
    error: BaseException | None,
) -> None:
    """A forward that has just ended: in the trace of the call whose turn it was, linked to the others'."""
    contexts = {context.span_id: context for context in (caller.get_span_context() for caller in callers)}
    sampled = [context for context in contexts.values() if context.trace_flags.sampled]
    if not sampled:
        return
    end = time.time_ns()
    span = trace.get_tracer("winnow").start_span(
        f"forward {net}",
        trace.set_span_in_context(trace.NonRecordingSpan(sampled[0])),
        links=[Link(context) for context in sampled[1:]],
        attributes={f"winnow.{name}": number for name, number in numbers.items()},
        start_time=end - round(seconds * 1e9),
    )
    if error is not None:
        span.set_status(Status(StatusCode.ERROR, type(error).__name__))
    span.end(end)
