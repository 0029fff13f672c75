"""Spans as a collector would get them, kept in memory by the SDK's own exporter."""

from collections.abc import Iterator
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from service import tracing
from service.log_lines import JsonLines
from tests.running import Service

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
HEADERS = {"traceparent": f"00-{TRACE}-{PARENT}-01"}
PATH = "/v1/collections/c/search"


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> Iterator[InMemorySpanExporter]:
    """What is exported while a test runs; the process has a provider only that long."""
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", provider)
    yield exporter
    provider.shutdown()


async def searched(service: Service, **request: Any) -> None:
    await service.make()
    await service.put([{"id": "a", "text": "moon"}])
    response = await service.client.post(PATH, json={"query": "moon", **request}, headers=HEADERS)
    assert response.status_code == 200


def within(spans: list[ReadableSpan], parent: ReadableSpan) -> list[str]:
    number = parent.context.span_id
    return sorted(span.name for span in spans if span.parent and span.parent.span_id == number)


async def test_a_search_is_a_span_with_its_stages_and_forwards_in_the_trace_of_who_asked(
    service: Service, spans: InMemorySpanExporter
):
    await searched(service, pipeline="hybrid")
    every = [span for span in spans.get_finished_spans() if span.context.trace_id == int(TRACE, 16)]
    found = {span.name: span for span in every}
    request = found["POST /v1/collections/{name}/search"]
    assert format(request.parent.span_id, "016x") == PARENT
    assert request.attributes["http.response.status_code"] == 200
    forward = next(name for name in found if name.startswith("forward "))
    assert within(every, request) in (["fuse", "group"], sorted(["fuse", "group", forward]))
    assert set(within(every, found["fuse"])) - {forward} == {"bm25", "dense"}
    stage = found["group"].attributes
    assert (stage["winnow.status"], stage["winnow.in"], stage["winnow.out"]) == ("ran", 1, 1)
    assert (found[forward].attributes["winnow.texts"], found[forward].attributes["winnow.padding"]) == (1, 0)


async def test_lines_bear_the_trace(
    service: Service, spans: InMemorySpanExporter, caplog: pytest.LogCaptureFixture
):
    caplog.set_level("INFO")
    caplog.handler.setFormatter(JsonLines())
    await searched(service)
    assert f'"trace_id": "{TRACE}"' in caplog.text


async def test_questions_are_in_no_span(service: Service, spans: InMemorySpanExporter):
    await searched(service, query="private")
    assert not any("private" in span.to_json() for span in spans.get_finished_spans())


async def test_probes_make_no_spans(service: Service, spans: InMemorySpanExporter):
    for path in sorted(tracing.QUIET_PATHS):
        await service.client.get(path)
    assert spans.get_finished_spans() == ()


def test_a_forward_for_several_is_in_the_trace_of_the_first_and_linked_to_the_others(
    spans: InMemorySpanExporter,
):
    tracer = trace.get_tracer("test")
    first, second = tracer.start_span("first"), tracer.start_span("second")
    tracing.forward("n", [first, first, second, trace.INVALID_SPAN], 0.5, {"texts": 3}, ValueError("private"))
    (forward,) = spans.get_finished_spans()
    assert forward.parent == first.get_span_context()
    assert [link.context for link in forward.links] == [second.get_span_context()]
    assert forward.end_time - forward.start_time == 500_000_000
    assert (forward.status.is_ok, forward.status.description) == (False, "ValueError")


async def test_where_nobody_collects_nothing_is_traced(service: Service):
    with tracing.step("stage") as span:
        assert span is trace.INVALID_SPAN
    await searched(service)
    assert tracing.trace_id() is None
