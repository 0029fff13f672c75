"""The service against its own OpenAPI document: requests made from it, right and wrong, and answers checked.

A few examples an operation here; hundreds under the mark `slow`.
"""

import re
import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis.core.failures import AcceptedNegativeData
from schemathesis.openapi.checks import RejectedPositiveData
from schemathesis.specs.openapi.checks import unsupported_method

from indexer.collection import NAME
from service.app import create_app
from service.settings import Settings
from tests.serving import serving

GIVEN: dict[str, Any] = {"api_key": "sesame", "limits": {"timeout_ms": 200}}  # so that nothing waits for long
KEY = {"Authorization": "Bearer sesame"}
SCHEMA = schemathesis.openapi.from_dict(create_app(Settings(**GIVEN)).openapi())

# Rules that a JSON schema cannot express: a request may follow the schema and break one of these.
UNSAID = re.compile(
    r"weights for|comes first in a pipeline|needs hits to work on|there is no pipeline|needs the component"
    r"|limit '(stages|pipeline_depth|candidates|query_bytes|filter_nodes)'|filter: |query: full query syntax"
    r"|there is no repository"
    r"|does not exist; the newest|not among the queries|metadata|bytes of UTF-8|another id"
    r"|a table of idf weights is for|set both|full syntax finds passages|is to score whole documents"
    r"|candidates are dropped in modes"
    r"|questions for \d+ texts"
    r"|is no token of|have \d+ numbers|tokens are too few|tokens are more than|tokens, and the model reads"
    r"|alpha and beta are both 0|missing 'score' is for|normalisation 'theoretical' needs"
)


VANISHING = {"query: violates `additionalProperties`", "header: violates `required`"}


@schemathesis.serializer("application/x-ndjson")
def ndjson(ctx: Any, value: Any) -> bytes:
    return value if isinstance(value, bytes) else str(value).encode("utf-8", "replace")


@SCHEMA.hook
def map_path_parameters(ctx: Any, path_parameters: Any) -> Any:
    """Ask for what is there where the name is a name, since otherwise every answer is 404."""
    given = path_parameters or {}
    if NAME.fullmatch(str(given.get("name"))) and ctx.operation.path != "/v1/collections/{name}":
        given["name"] = "c"
    if "job_id" in given:
        given["job_id"] = "c.job"
    return path_parameters


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with serving(tmp_path_factory.mktemp("contract"), **GIVEN) as (url, state):
        httpx.put(f"{url}/v1/collections/c", json={}, headers=KEY).raise_for_status()
        state.catalog.get("c").log.append([], job="job")
        while state.warmup.pending:
            time.sleep(0.05)
        yield url


def keeps_its_word(case: Any, address: str) -> None:
    response = case.call(base_url=address, headers=KEY)
    # DELETE of …:restore is DELETE of a snapshot, of a name that none can have: 422 and not 405.
    excluded = [unsupported_method] if case.operation.path.endswith(":restore") else []
    try:
        case.validate_response(response, headers=KEY, excluded_checks=excluded)
    except* RejectedPositiveData:
        assert response.status_code in (400, 422)  # some vendors have the one, and we the other
        assert UNSAID.search(response.text), response.text
    except* AcceptedNegativeData as found:
        if not whole_after_all(case, response, "\n".join(map(str, found.exceptions))):
            raise


def whole_after_all(case: Any, response: Any, why: str) -> bool:
    """Whether what was wrong is not in the request that was sent: of a parameter too many, with an empty list
    as its value, a URL has nothing, and a missing key is put back.
    """
    known = {each.name for each in case.operation.query}
    sent = httpx.URL(response.request.url).params.keys()
    wrong = re.findall(r"^ *- (.+?)(?: \(was .*)?$", why, re.MULTILINE)
    return {*wrong} <= VANISHING and bool(wrong) and sent <= known


def test_only_what_is_not_in_the_request_is_let_pass() -> None:
    case = SimpleNamespace(operation=SimpleNamespace(query=[SimpleNamespace(name="wait")]))

    def passes(url: str, *wrong: str) -> bool:
        why = "Invalid component:\n" + "\n".join(f"  - {each}" for each in wrong)
        return whole_after_all(case, SimpleNamespace(request=SimpleNamespace(url=url)), why)

    too_many, key = (
        "query: violates `additionalProperties`",
        "header: violates `required` (was Authorization)",
    )
    assert passes("http://a/?wait=x", too_many, key)
    assert not passes("http://a/?wait=x&more=1", too_many)
    assert not passes("http://a/?wait=x", too_many, "query: violates `enum` (was 'indexed')")
    assert not passes("http://a/", too_many, "body: violates `type`")
    assert not passes("http://a/")


@SCHEMA.exclude(path="/v1/collections/{name}/search:batch").parametrize()  # a list of what /search takes
@settings(max_examples=5, deadline=None, suppress_health_check=list(HealthCheck))
def test_every_operation_keeps_its_word(case: Any, address: str) -> None:
    keeps_its_word(case, address)


@pytest.mark.slow
@SCHEMA.parametrize()
@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
def test_every_operation_keeps_its_word_many_times(case: Any, address: str) -> None:
    keeps_its_word(case, address)
