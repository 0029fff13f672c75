"""Every route has a scope; what nobody thought of needs `admin`."""

import re

import pytest

from service.app import create_app
from service.scopes import needed
from service.settings import Settings

WRITE = {
    "POST /v1/collections/{name}/documents",
    "POST /v1/collections/{name}/documents:delete",
    "DELETE /v1/collections/{name}/documents/{document_id}",
    "POST /v1/jobs/{job_id}:retry",
    "DELETE /v1/jobs/{job_id}/failures",
}
OPEN = {"GET /livez", "GET /readyz", "GET /health"}
READING_POSTS = {
    "POST /v1/collections/{name}/search",
    "POST /v1/collections/{name}/search:batch",
    "POST /v1/collections/{name}/evaluate",
    "POST /v1/embeddings",
    "POST /embed",
    "POST /embed_sparse",
    "POST /v1/rerank",
    "POST /v2/rerank",
    "POST /rerank",
    "POST /score",
}


def expected(route: str) -> str | None:
    if route in OPEN:
        return None
    if route in WRITE:
        return "write"
    return "read" if route.startswith("GET ") or route in READING_POSTS else "admin"


def routes() -> set[str]:
    paths = create_app(Settings(worker="external")).openapi()["paths"]
    return {f"{method.upper()} {path}" for path, methods in paths.items() for method in methods}


@pytest.mark.parametrize("route", sorted(routes()))
def test_every_route_has_a_scope(route: str):
    method, path = route.split(" ")
    named = re.sub(r"\{(\w+)\}", lambda found: "a/b" if found[1] == "document_id" else "x", path)
    assert needed(method, named) == expected(route)


def test_the_routes_that_are_named_here_exist():
    assert routes() >= WRITE | OPEN | READING_POSTS


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("PUT", "/v1/collections/c"),
        ("DELETE", "/v1/collections/c"),
        ("POST", "/v1/collections/c/snapshots"),
        ("POST", "/v1/collections/c/snapshots/s:restore"),
        ("DELETE", "/v1/collections/c/snapshots/s"),
        ("POST", "/v1/collections/c/anything/search"),
        ("POST", "/v1/collections/c/searches"),
        ("DELETE", "/v1/collections/c/documents/"),
        ("DELETE", "/v1/collections/c/documents"),
        ("PATCH", "/v1/collections/c/documents/a"),
        ("POST", "/nowhere"),
        ("POST", "/livez/"),
    ],
)
def test_what_is_not_named_needs_admin(method: str, path: str):
    assert needed(method, path) == "admin"


@pytest.mark.parametrize("key", ["a/b", "../x", "a\nb", "failures"])
def test_an_id_may_be_anything(key: str):
    assert needed("DELETE", f"/v1/collections/c/documents/{key}") == "write"
    assert needed("GET", f"/v1/collections/c/documents/{key}") == "read"


def test_looking_at_the_unknown_is_reading():
    assert needed("GET", "/v1/collections/c/snapshots") == "read"
    assert needed("HEAD", "/nowhere") == "read"
