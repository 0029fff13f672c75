"""Writing and reading documents over HTTP."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import quote

import orjson
import pytest
import pytest_asyncio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.running import Service, running

pytestmark = pytest.mark.asyncio(loop_scope="module")

DOCUMENTS = "/v1/collections/c/documents"
NDJSON = {"Content-Type": "application/x-ndjson"}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shelf(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Service]:
    """A collection that every test puts its own documents into."""
    async with running(
        tmp_path_factory.mktemp("shelf"), limits={"documents": 5, "document_bytes": 2000}
    ) as service:
        await service.make(columns={"year": "int64"})
        yield service


def lines(*documents: Any) -> bytes:
    return b"\n".join(each if isinstance(each, bytes) else json.dumps(each).encode() for each in documents)


async def queued(shelf: Service) -> int:
    return int((await shelf.ask("GET", "/v1/collections/c"))["queued"])


async def test_a_write_is_acknowledged_with_a_job_and_found_once_indexed(shelf: Service):
    response = await shelf.client.post(
        DOCUMENTS, json={"id": "one", "text": "a moon", "metadata": {"year": 1}}
    )
    assert response.status_code == 202
    answer = response.json()
    assert (answer["accepted"], answer["superseded"], answer["rejected"]) == (1, [], [])
    assert answer["job"]["state"] == "queued"
    assert response.headers["location"] == f"/v1/jobs/{answer['job']['id']}"
    await shelf.ask("GET", f"{DOCUMENTS}/one", 404)
    await shelf.index()
    document = await shelf.ask("GET", f"{DOCUMENTS}/one")
    assert document == {"id": "one", "title": "", "text": "a moon", "metadata": {"year": 1}}
    assert (await shelf.ask("GET", response.headers["location"]))["state"] == "done"


async def test_an_update_replaces_and_a_delete_removes(shelf: Service):
    await shelf.put([{"id": "two", "text": "first"}])
    await shelf.put([{"_id": "two", "text": "second"}])
    assert (await shelf.ask("GET", f"{DOCUMENTS}/two"))["text"] == "second"
    await shelf.ask("DELETE", f"{DOCUMENTS}/two", 202)
    await shelf.index()
    await shelf.ask("GET", f"{DOCUMENTS}/two", 404)


async def test_waiting_until_a_change_can_be_searched(shelf: Service):
    wait = {"params": {"wait": "searchable", "timeout_ms": 10_000}}
    write = asyncio.create_task(
        shelf.ask("POST", DOCUMENTS, 200, json=[{"id": "w", "text": "waited for"}], **wait)
    )
    await asyncio.sleep(0.05)
    assert not write.done()
    await shelf.index()
    assert (await write)["job"]["state"] == "done"
    assert (await shelf.ask("GET", f"{DOCUMENTS}/w"))["text"] == "waited for"


async def test_waiting_in_vain_answers_with_the_job(shelf: Service):
    wait = {"params": {"wait": "searchable", "timeout_ms": 20}}
    answer = await shelf.ask("DELETE", f"{DOCUMENTS}/w", 202, **wait)
    assert answer["job"]["state"] == "queued"
    await shelf.ask("DELETE", f"{DOCUMENTS}/w", 422, params={"wait": "searchable", "timeout_ms": 10**6})
    await shelf.ask("DELETE", f"{DOCUMENTS}/w", 422, params={"wait": "published"})


@pytest.mark.parametrize("name", ["a/b", "../../x", "ü", "%2F", "a b", "?x=1#y", "/", "日本", "x" * 512])
async def test_any_id_can_be_written_read_and_deleted(shelf: Service, name: str):
    path = f"{DOCUMENTS}/{quote(name, safe='')}"
    await shelf.put([{"id": name, "text": "something"}])
    assert (await shelf.ask("GET", path))["id"] == name
    await shelf.ask("DELETE", path, 202)
    await shelf.index()
    await shelf.ask("GET", path, 404)


@pytest.mark.parametrize(
    "name", ["", "x" * 513, "a\r\nb", "\x00", 7, None, ["a"], pytest.param("x" * 10**6, id="a million")]
)
async def test_an_impossible_id_is_refused(shelf: Service, name: Any):
    problem = await shelf.ask("POST", DOCUMENTS, 422, json={"id": name, "text": "something"})
    assert problem["errors"][0]["field"] == "id"


@given(name=st.text(max_size=40) | st.sampled_from(["..", "/etc/passwd", "a/../b", "C:\\x", ".CURRENT"]))
@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
async def test_no_id_becomes_a_path(shelf: Service, name: str):
    root = shelf.state.settings.data_dir
    before = sorted(root.rglob("*"))
    body = json.dumps({"id": name, "text": "something"}).encode()
    response = await shelf.client.post(DOCUMENTS, content=body, headers={"Content-Type": "application/json"})
    assert response.status_code in (202, 422)
    assert sorted(root.rglob("*")) == before


async def test_an_array_is_taken_whole_or_not_at_all(shelf: Service):
    before = await queued(shelf)
    documents = [
        {"id": "ok", "text": "fine"},
        {"id": "bad", "txt": "?"},
        {"id": "worse", "text": 3, "title": None},
    ]
    problem = await shelf.ask("POST", DOCUMENTS, 422, json=documents)
    places = [(error["index"], error["field"], error["code"]) for error in problem["errors"]]
    assert (1, "text", "missing") in places
    assert (1, "txt", "extra_forbidden") in places
    assert (2, "text", "string_type") in places
    assert await queued(shelf) == before


@pytest.mark.parametrize(
    ("document", "sentence"),
    [
        ({"id": "a", "text": "x" * 2000}, "the limit 'document_bytes' is 2000"),
        (
            {"id": "a", "text": "", "metadata": {"year": "soon"}},
            "'year' is declared int64, which 'soon' is not",
        ),
        ({"id": "a", "text": "", "metadata": {"$or": 1}}, "metadata cannot be called '$or'"),
        ({"id": "a", "text": "", "metadata": {"n": 10**30}}, "must fit in 64 signed bits"),
    ],
)
async def test_what_cannot_be_indexed_is_refused_before_it_is_written(
    shelf: Service, document: Any, sentence: str
):
    before = await queued(shelf)
    problem = await shelf.ask("POST", DOCUMENTS, 422, json=[{"id": "fine", "text": ""}, document])
    assert sentence in problem["detail"]
    assert problem["errors"][0]["index"] == 1
    report = await shelf.ask("POST", DOCUMENTS, 202, content=lines(document), headers=NDJSON)
    assert sentence in report["rejected"][0]["detail"]
    assert await queued(shelf) == before


async def test_of_documents_with_one_id_the_last_wins_and_the_others_are_reported(shelf: Service):
    documents = [{"id": "d", "text": "1"}, {"id": "e", "text": "2"}, {"id": "d", "text": "3"}]
    answer = await shelf.put(documents)
    assert answer["accepted"] == 2
    assert answer["superseded"] == [{"index": 0, "id": "d"}]
    assert (await shelf.ask("GET", f"{DOCUMENTS}/d"))["text"] == "3"


async def test_lines_are_judged_one_by_one(shelf: Service):
    body = lines(
        {"id": "l1", "text": "1"},
        b"",
        b"{",
        {"id": "l2"},
        b'{"id": "l3", "text": NaN}',
        {"id": "l1", "text": "2"},
    )
    answer = await shelf.ask("POST", DOCUMENTS, 202, content=body, headers=NDJSON)
    assert answer["accepted"] == 1
    assert answer["superseded"] == [{"index": 1, "id": "l1"}]
    assert [(each["line"], each["code"]) for each in answer["rejected"]] == [
        (3, "malformed_json"),
        (4, "invalid_request"),
        (5, "invalid_request"),
    ]
    assert "text: Field required" in answer["rejected"][1]["detail"]
    await shelf.index()
    assert (await shelf.ask("GET", f"{DOCUMENTS}/l1"))["text"] == "2"


async def test_lines_may_be_cut_anywhere_on_their_way(shelf: Service):
    body = lines({"id": "s1", "text": "é" * 50}, {"id": "s2", "text": "x"}) + b"\r\n"

    async def bits() -> AsyncIterator[bytes]:
        for at in range(0, len(body), 7):
            yield body[at : at + 7]

    answer = await shelf.ask("POST", DOCUMENTS, 202, content=bits(), headers=NDJSON)
    assert (answer["accepted"], answer["rejected"]) == (2, [])


@pytest.mark.parametrize("headers", [NDJSON, {"Content-Type": "application/json"}])
async def test_the_number_of_documents_is_bounded(shelf: Service, headers: dict[str, str]):
    documents = [{"id": str(n), "text": ""} for n in range(6)]
    body = lines(*documents) if headers is NDJSON else orjson.dumps(documents)
    problem = await shelf.ask("POST", DOCUMENTS, 422, content=body, headers=headers)
    assert "the limit 'documents' is 5" in problem["detail"]


async def test_deleting_by_ids_and_by_filter(shelf: Service):
    years = [{"id": f"y{n}", "text": "", "metadata": {"year": n}} for n in range(4)]
    await shelf.put(years)
    path = f"{DOCUMENTS}:delete"
    assert (await shelf.ask("POST", path, 202, json={"ids": ["y0", "y0", "unknown"]}))["accepted"] == 2
    await shelf.ask("POST", path, 202, json={"filter": {"year": {"gte": 2}}})
    await shelf.index()
    for number, status in enumerate([404, 200, 404, 404]):
        await shelf.ask("GET", f"{DOCUMENTS}/y{number}", status)


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"ids": []},
        {"filter": {}},
        {"ids": ["a"], "filter": {"a": 1}},
        {"filter": {"$x": 1}},
        {"ids": [""]},
    ],
)
async def test_a_deletion_says_exactly_what_to_delete(shelf: Service, body: Any):
    await shelf.ask("POST", f"{DOCUMENTS}:delete", 422, json=body)


@pytest.mark.parametrize(
    "kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""]
)
async def test_other_kinds_of_body_are_not_read(shelf: Service, kind: str):
    problem = await shelf.ask(
        "POST", DOCUMENTS, 415, content=b'{"id": "a", "text": ""}', headers={"Content-Type": kind}
    )
    assert "application/json" in problem["detail"]


async def test_an_unknown_collection_takes_nothing(shelf: Service):
    for method, path in (("POST", "documents"), ("DELETE", "documents/a"), ("GET", "documents/a")):
        content = {"json": {"id": "a", "text": ""}} if method == "POST" else {}
        await shelf.ask(method, f"/v1/collections/nowhere/{path}", 404, **content)
