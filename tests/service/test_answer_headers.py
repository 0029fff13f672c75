"""Every answer says how it is to be treated, errors included."""

from pathlib import Path

import pytest
from starlette.responses import HTMLResponse, Response

from service.catalog import Catalog
from tests.running import Service, running

SAFE = {
    "x-content-type-options": "nosniff",
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
    "referrer-policy": "no-referrer",
    "cache-control": "no-store",
}


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/livez", 200),
        ("GET", "/metrics", 200),
        ("GET", "/openapi.json", 200),
        ("GET", "/v1/collections", 200),
        ("GET", "/nowhere", 404),
        ("POST", "/livez", 405),
        ("POST", "/embed", 422),
        ("POST", "/v1/collections/c/search", 500),
    ],
)
async def test_every_answer_has_them(
    service: Service, monkeypatch: pytest.MonkeyPatch, method: str, path: str, status: int
):
    def broken(*anything: object) -> None:
        raise RuntimeError

    monkeypatch.setattr(Catalog, "get", broken)
    content = {"json": {"query": "moon"}} if "search" in path else {}
    response = await service.client.request(method, path, **content)
    assert response.status_code == status
    assert {name: response.headers.get(name) for name in SAFE} == SAFE
    assert "connection" not in response.headers


async def test_what_a_route_says_itself_stands(service: Service):
    async def page() -> Response:
        return HTMLResponse("", headers={"Content-Security-Policy": "default-src 'self'"})

    service.app.add_api_route("/page", page)
    response = await service.client.get("/page")
    assert response.headers.get_list("content-security-policy") == ["default-src 'self'"]
    assert response.headers["x-content-type-options"] == "nosniff"


async def test_a_service_that_is_about_to_stop_says_so_and_still_answers(tmp_path: Path):
    async with running(tmp_path) as service:
        service.state.draining.set()
        problem = await service.ask("GET", "/readyz", 503)
        assert "draining: " in problem["detail"]
        response = await service.client.get("/v1/collections")
        assert response.status_code == 200
        assert response.headers["connection"] == "close"
