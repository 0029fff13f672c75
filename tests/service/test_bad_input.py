"""What a service must survive: bytes that are no request, and requests that ask too much."""

import json
from collections.abc import AsyncIterator
from typing import Any

import orjson
import pytest
import pytest_asyncio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from service.error_shapes import WIRES
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


@pytest.mark.parametrize("path", sorted(WIRES))
async def test_every_model_endpoint_refuses_bad_json_as_its_vendor_does(service: Service, path: str):
    for body, _ in BODIES:
        response = await service.client.post(path, content=body, headers=JSON)
        assert response.status_code in (400, 422, 405), (body[:30], response.text)


def examples(number: int) -> settings:
    return settings(
        max_examples=number, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None
    )


async def any_bytes(service: Service, body: bytes) -> None:
    for method, path in ROUTES:
        response = await service.client.request(method, path, content=body, headers=JSON)
        assert response.status_code < 500, (method, path, body)


@given(body=st.binary(max_size=60))
@examples(60)
async def test_any_bytes_get_an_answer_below_500(service: Service, body: bytes):
    await any_bytes(service, body)


@pytest.mark.slow  # half a minute
@given(body=st.binary(max_size=600))
@examples(3000)
async def test_many_bytes_get_an_answer_below_500(service: Service, body: bytes):
    await any_bytes(service, body)


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


async def any_search(service: Service, request: Any) -> None:
    body = json.dumps(request).encode()
    response = await service.client.post("/v1/collections/c/search", content=body, headers=JSON)
    assert response.status_code in (200, 400, 410, 422), (request, response.text)


@given(request=REQUESTS)
@examples(100)
async def test_any_search_request_gets_an_answer_below_500(service: Service, request: Any):
    await any_search(service, request)


@pytest.mark.slow  # a minute
@given(request=REQUESTS)
@examples(5000)
async def test_many_search_requests_get_an_answer_below_500(service: Service, request: Any):
    await any_search(service, request)


DOCUMENTS = st.fixed_dictionaries(
    {"id": st.text(max_size=5), "text": st.text(max_size=9), "metadata": VALUES}
)


async def any_document(service: Service, document: Any) -> None:
    """It is stored as it was sent, or refused; what no JSON can say is never stored."""
    log = service.state.catalog.get("c").log
    before = log.last_position()
    body = json.dumps(document).encode()
    response = await service.client.post("/v1/collections/c/documents", content=body, headers=JSON)
    assert response.status_code in (202, 400, 422), (document, response.text)
    stored = [json.loads(entry.operation.payload, parse_constant=int) for entry in log.read(before, 9, 10**9)]
    assert [each["text"] for each in stored] == ([document["text"]] if response.status_code == 202 else [])


@given(document=DOCUMENTS)
@examples(60)
async def test_any_document_is_accepted_or_refused(service: Service, document: Any):
    await any_document(service, document)


@pytest.mark.slow  # a minute
@given(document=DOCUMENTS)
@examples(3000)
async def test_many_documents_are_accepted_or_refused(service: Service, document: Any):
    await any_document(service, document)


NOT = '{"$not": ' * 9 + "{}" + "}" * 9
LARGE: list[tuple[str, str, str]] = [  # path, body, what names the limit
    ("/v1/collections/c/search", '{"query": "a", "top_k": 1000000000}', "'top_k' is 1000"),
    (
        "/v1/collections/c/search",
        '{"query": "a", "filter": {"$or": [' + ", ".join(['{"a": 1}'] * 10**5) + "]}}",
        "at most 256 nodes",
    ),
    ("/v1/collections/c/search", f'{{"query": "a", "filter": {NOT}}}', "nest at most 8 deep"),
    (
        "/v1/collections/c/search",
        json.dumps({"query": "a", "filter": {"a": list(range(10_001))}}),
        "at most 10,000 values",
    ),
    (
        "/v1/collections/c/search",
        json.dumps({"query": "a", "pipeline": [{"stage": "dense"}, {"stage": "late", "k": 10**6}]}),
        "'rerank' is 1000",
    ),
    ("/v1/rerank", json.dumps({"query": "a", "documents": ["a"] * 10**6}), "'rerank' is 1000"),
    ("/v1/embeddings", json.dumps({"input": ["a"] * 10**6}), "'inputs' is 2048"),
    ("/v1/collections/c/documents:delete", json.dumps({"ids": ["a"] * 10**5}), "'documents' is 10000"),
]


@pytest.mark.parametrize(("path", "body", "named"), LARGE, ids=[named for _, _, named in LARGE])
async def test_what_asks_too_much_is_refused_and_the_limit_named(
    service: Service, path: str, body: str, named: str
):
    response = await service.client.post(path, content=body.encode(), headers=JSON)
    assert response.status_code == (400 if path == "/v1/embeddings" else 422)
    assert named in response.text


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
        "/(a+)+$/",
        "a~2 " * 2_000,
        '"' + "a " * 3_000 + '"~100',
        "(a OR " * 60 + "b" + ")" * 60,
    ],
    ids=lambda query: query[:10],
)
async def test_pathological_query_syntax_is_answered_soon(service: Service, query: str):
    await service.put([{"id": f"d{n}", "text": "a b c"} for n in range(3)])
    body = {"query": query, "pipeline": [{"stage": "bm25", "query_syntax": "full"}], "timeout_ms": 5000}
    response = await service.client.post("/v1/collections/c/search", content=orjson.dumps(body), headers=JSON)
    assert response.status_code in (200, 422), response.text


@pytest.mark.parametrize(
    "wanted",
    [
        {"$and": [{"$or": [{"n": [f"{a}{b}" for b in range(40)]} for a in range(15)]}] * 15},
        {"n": list(range(9_000))},
        {"$or": [{"n": {"gte": n, "lt": n + 0.5}} for n in range(250)]},
        {"n" * 100_000: {"exists": False}},
        {"n": {"gte": "(a+)+$", "lt": "\U0010ffff"}},
    ],
    ids=["nested", "values", "ranges", "path", "text"],
)
async def test_pathological_filters_are_answered_in_their_time(service: Service, wanted: Any):
    await service.put([{"id": f"d{n}", "text": "a b c", "metadata": {"n": n}} for n in range(3)])
    for pipeline in ("bm25", "dense", [{"stage": "bm25", "query_syntax": "full"}]):
        body = {"query": "a", "pipeline": pipeline, "filter": wanted, "timeout_ms": 5000}
        response = await service.client.post("/v1/collections/c/search", json=body)
        assert response.status_code in (200, 422, 504), response.text
