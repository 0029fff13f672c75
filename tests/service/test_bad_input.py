"""What a service must survive: bytes that are no request, and requests that ask too much."""

import json
from collections.abc import AsyncIterator
from typing import Any

import orjson
import pytest
import pytest_asyncio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.running import Service, running

pytestmark = pytest.mark.asyncio(loop_scope="module")

JSON = {"Content-Type": "application/json"}
DEEP = 100_000


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def service(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Service]:
    async with running(tmp_path_factory.mktemp("bad")) as service:
        await service.make()
        yield service


ROUTES = [
    ("POST", "/v1/collections/c/search"),
    ("POST", "/v1/collections/c/search:batch"),
    ("POST", "/v1/collections/c/documents"),
    ("POST", "/v1/collections/c/documents:delete"),
    ("PUT", "/v1/collections/d"),
]


async def answer(service: Service, method: str, path: str, body: bytes) -> tuple[int, dict[str, Any]]:
    response = await service.client.request(method, path, content=body, headers=JSON)
    assert response.headers["content-type"] == "application/problem+json", response.text
    return response.status_code, response.json()


BODIES = [
    (b'{"query": NaN}', 422),
    (b'{"query": "x", "k": 1e999}', 422),
    (b'[{"id": "a", "text": "", "metadata": {"a": -1e999}}]', 422),
    (b'{"query": -Infinity}', 422),
    (rb'{"query": "\ud800"}', 422),
    (rb'{"\udfff": "x"}', 422),
    (b'{"query": "\xff"}', 400),
    (b'{"query": "\xed\xa0\x80"}', 400),
    (b'{"query": "a\x00b"}', 400),
    (b'\x00{"query": "a"}', 400),
    (b'{"query": "a", "query": "b"}', 400),
    (b'[{"id": "a", "text": "", "id": "b"}]', 400),
    (b"[" * DEEP, 400),
    (b'{"filter":' * DEEP, 400),
    (b'{"a":' * DEEP + b"1" + b"}" * DEEP, 400),
    (b'{"top_k": ' + b"9" * 10_000 + b"}", 400),
    (b"{'query': 'a'}", 400),
    (b"7", 422),
    (b'"text"', 422),
]


@pytest.mark.parametrize(("method", "path"), ROUTES)
@pytest.mark.parametrize(
    ("body", "status"),
    BODIES,
    ids=lambda value: repr(value[:30]) if isinstance(value, bytes) else None,
)
async def test_every_route_answers_bad_json_alike(
    service: Service, method: str, path: str, body: bytes, status: int
):
    found, problem = await answer(service, method, path, body)
    assert (found, problem["status"]) == (status, status), problem


@given(body=st.binary(max_size=60))
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
async def test_any_bytes_get_an_answer_below_500(service: Service, body: bytes):
    for method, path in ROUTES:
        response = await service.client.request(method, path, content=body, headers=JSON)
        assert response.status_code < 500, (method, path, body)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**66), 2**66) | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)
REQUESTS = st.fixed_dictionaries(
    {},
    optional={
        "query": st.text(max_size=20) | VALUES,
        "top_k": VALUES,
        "pipeline": st.lists(
            st.fixed_dictionaries({"stage": st.sampled_from(["bm25", "fuse", "group", "x"])})
        )
        | VALUES,
        "filter": st.dictionaries(st.sampled_from(["$and", "$or", "$not", "a"]), VALUES),
        "fields": VALUES,
        "timeout_ms": VALUES,
        "generation": VALUES,
    },
)


@given(request=REQUESTS)
@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
async def test_any_search_request_gets_an_answer_below_500(service: Service, request: Any):
    body = json.dumps(request).encode()
    response = await service.client.post("/v1/collections/c/search", content=body, headers=JSON)
    assert response.status_code in (200, 400, 410, 422), (request, response.text)


@given(
    document=st.fixed_dictionaries(
        {"id": st.text(max_size=5), "text": st.text(max_size=9), "metadata": VALUES}
    )
)
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
async def test_any_document_is_accepted_or_refused(service: Service, document: Any):
    body = json.dumps(document).encode()
    response = await service.client.post("/v1/collections/c/documents", content=body, headers=JSON)
    assert response.status_code in (202, 400, 422), (document, response.text)


@pytest.mark.parametrize(
    "query",
    [
        "(" * 10_000,
        '"' * 8_000,
        "a* " * 2_000,
        "[a TO z]",
        "/.*/",
        "+" * 8_000,
        "a AND " * 1_000 + "b",
        "NOT " * 2_000 + "a",
        "x:" * 2_000,
        "~" * 4_000,
        "^" * 4_000,
        "\\" * 8_000,
    ],
    ids=lambda query: query[:10],
)
async def test_pathological_query_syntax_is_answered_soon(service: Service, query: str):
    await service.put([{"id": f"d{n}", "text": "a b c"} for n in range(3)])
    body = {"query": query, "pipeline": [{"stage": "bm25", "query_syntax": "full"}], "timeout_ms": 5000}
    response = await service.client.post("/v1/collections/c/search", content=orjson.dumps(body), headers=JSON)
    assert response.status_code in (200, 422), response.text
