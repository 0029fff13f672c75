"""Who gets in, with keys in a file and with the one of the settings."""

import asyncio
from pathlib import Path

import httpx
import pytest
from starlette.responses import PlainTextResponse

from service.admission import Admission
from service.guards import RequestId
from service.keys import Keys, change_keys, new_key
from service.rates import Rates
from service.settings import Settings
from tests.running import running


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    return tmp_path / "keys.json"


def add(path: Path, *scopes: str, rate: str | None = None) -> dict[str, str]:
    """Make a key, and give the header that sends it."""
    secret, key = new_key("-".join(scopes), scopes, rate)
    change_keys(path, lambda known: [*known, key])
    return {"Authorization": f"Bearer {secret}"}


def client(keys: Keys, rates: Rates | None = None) -> httpx.AsyncClient:
    app = RequestId(Admission(PlainTextResponse("in"), keys, rates or Rates()))
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://winnow")


@pytest.mark.parametrize("header", [None, "", "Bearer", "Bearer wrong", "Basic sesame", "sesame"])
async def test_without_a_key_nobody_passes(keys: Path, header: str | None):
    headers = {} if header is None else {"Authorization": header}
    response = await client(Keys(keys, "sesame")).get("/v1/collections", headers=headers)
    assert response.status_code == 401
    assert response.headers["www-authenticate"] == "Bearer"
    assert response.json()["request_id"] == response.headers["x-request-id"]


@pytest.mark.parametrize("header", ["Bearer sesame", "bearer  sesame"])
async def test_with_the_key_of_the_settings_one_passes_anywhere(keys: Path, header: str):
    asking = client(Keys(keys, "sesame"))
    for method, path in (("GET", "/v1/jobs"), ("POST", "/v1/collections/c/documents"), ("PUT", "/anything")):
        assert (await asking.request(method, path, headers={"Authorization": header})).status_code == 200


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/health"])
async def test_probes_need_no_key_and_have_no_rate(keys: Path, path: str):
    asking = client(Keys(keys, "sesame"), Rates("1/day"))
    for _ in range(3):
        assert (await asking.get(path)).status_code == 200


async def test_a_key_does_what_its_scopes_say_and_no_more(keys: Path):
    reader, writer = add(keys, "read"), add(keys, "write")
    asking = client(Keys(keys))
    search, documents = "/v1/collections/c/search", "/v1/collections/c/documents"
    assert (await asking.post(search, headers=reader)).status_code == 200
    assert (await asking.post(documents, headers=writer)).status_code == 200
    assert (await asking.post(search, headers=writer)).status_code == 403, "writing is not reading"
    response = await asking.delete("/v1/collections/c", headers=reader)
    assert response.status_code == 403
    assert response.headers["content-type"] == "application/problem+json"
    problem = response.json()
    assert (problem["code"], problem["title"]) == ("scope_missing", "Scope missing")
    assert problem["detail"] == "this needs the scope 'admin', and the key 'read' has read"


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("/v1/embeddings", '"type":"permission_error"'),
        ("/embed", '"error_type":"Unauthorized"'),
        ("/v1/rerank", '{"detail":"this needs'),
        ("/v2/rerank", '{"message":"this needs'),
    ],
)
async def test_vendors_paths_answer_in_their_shape(keys: Path, path: str, said: str):
    response = await client(Keys(keys)).post(path, headers=add(keys, "write"))
    assert response.status_code == 403
    assert said in response.text


async def test_each_key_has_a_rate_of_its_own(keys: Path):
    often, seldom = add(keys, "read"), add(keys, "read", "write", rate="1/hour")
    asking = client(Keys(keys), Rates("2/hour"))

    async def statuses(headers: dict[str, str]) -> list[int]:
        return [(await asking.get("/v1/jobs", headers=headers)).status_code for _ in range(3)]

    assert await statuses(seldom) == [200, 429, 429]
    assert await statuses(often) == [200, 200, 429], "the other's requests cost it nothing"


async def test_one_too_many_is_told_when_to_come_back(keys: Path):
    asking = client(Keys(keys), Rates("1/minute"))
    assert (await asking.get("/v1/jobs")).status_code == 200, "nobody needs a key, and all count together"
    response = await asking.get("/v1/jobs")
    assert response.status_code == 429
    assert response.json()["code"] == "rate_exceeded"
    assert 59_000 < response.json()["retry_after_ms"] <= 60_000
    assert response.headers["retry-after"] == "60"
    assert response.headers["ratelimit-policy"] == '"key";q=1;w=60'
    assert response.headers["ratelimit"] == '"key";r=0;t=60'


async def test_a_refused_request_costs_nothing_of_the_rate(keys: Path):
    reader = add(keys, "read", rate="1/hour")
    asking = client(Keys(keys))
    assert (await asking.put("/v1/collections/c", headers=reader)).status_code == 403
    assert (await asking.get("/v1/jobs", headers=reader)).status_code == 200


async def test_keys_come_and_go_while_the_service_runs(tmp_path: Path):
    async with running(tmp_path) as service:
        await service.ask("GET", "/v1/collections")
        path = service.state.settings.keys_path()
        reader = add(path, "read")
        await service.ask("GET", "/v1/collections", 401)
        await service.ask("GET", "/v1/collections", headers=reader)
        await service.ask("PUT", "/v1/collections/c", 403, headers=reader, json={})
        path.write_text("{")
        await service.ask("GET", "/v1/collections", headers=reader)
        while service.state.warmup.pending:
            await asyncio.sleep(0.02)
        ready = await service.ask("GET", "/readyz")
        assert ready["status"] == "degraded"
        assert "keys.json is damaged" in ready["reasons"][0]


async def test_keys_are_documented_where_there_are_any(tmp_path: Path):
    add(tmp_path / "keys.json", "read")
    async with running(tmp_path) as service:
        document = service.app.openapi()
    operation = document["paths"]["/v1/collections/{name}"]["put"]
    assert operation["security"] == [{"HTTPBearer": []}]
    assert {"401", "403", "429"} <= set(operation["responses"])


def test_with_keys_the_service_may_listen_beyond_loopback(tmp_path: Path):
    with pytest.raises(ValueError, match="winnow keys add"):
        Settings(host="0.0.0.0", data_dir=tmp_path)
    add(tmp_path / "keys.json", "read")
    assert Settings(host="0.0.0.0", data_dir=tmp_path).host == "0.0.0.0"
    elsewhere = Settings(host="0.0.0.0", data_dir=tmp_path / "other", keys_file=tmp_path / "keys.json")
    assert elsewhere.keys_path() == tmp_path / "keys.json"
