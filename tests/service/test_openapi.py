"""The OpenAPI document: what clients are generated from, so names matter and examples are right."""

import json
import re
from typing import Any

import jsonschema
import pytest
from typer.testing import CliRunner

from service.app import create_app
from service.cli import app
from service.settings import Settings

DOCUMENT: dict[str, Any] = create_app(Settings(worker="external")).openapi()
SCHEMAS: dict[str, Any] = DOCUMENT["components"]["schemas"]
OPERATIONS = [operation for methods in DOCUMENT["paths"].values() for operation in methods.values()]
EXAMPLES = [(name, example) for name, schema in SCHEMAS.items() for example in schema.get("examples", ())]


def test_an_operation_is_named_once_as_a_function_would_be():
    names = [operation["operationId"] for operation in OPERATIONS]
    assert len(names) == len(set(names))
    assert [name for name in names if not re.fullmatch(r"[a-z]+(_[a-z]+)*", name)] == []
    assert {"search", "create_collection", "put_documents", "create_embeddings", "rerank_jina"} <= set(names)


def test_an_operation_has_one_tag_a_summary_and_a_description():
    for operation in OPERATIONS:
        assert len(operation["tags"]) == 1, operation["operationId"]
        assert operation["summary"]
        assert operation["description"]


def test_schemas_have_names_of_ours_and_say_what_they_are():
    assert [name for name in SCHEMAS if not re.fullmatch(r"[A-Z][A-Za-z0-9]+", name)] == []
    assert [name for name in SCHEMAS if name.startswith("Body")] == []
    assert [name for name, schema in SCHEMAS.items() if not schema.get("description")] == ["JsonValue"]


def test_a_schema_is_used():
    used = set(re.findall(r'#/components/schemas/(\w+)"', json.dumps(DOCUMENT)))
    assert set(SCHEMAS) - used == set()


@pytest.mark.parametrize("name", ["CollectionRequest", "Document", "EvaluateRequest", "SearchRequest"])
def test_what_one_sends_has_an_example(name: str):
    assert SCHEMAS[name]["examples"]


@pytest.mark.parametrize(("name", "example"), EXAMPLES, ids=lambda value: str(value)[:40])
def test_examples_follow_their_schema(name: str, example: Any):
    schema = {"$ref": f"#/components/schemas/{name}", "components": DOCUMENT["components"]}
    jsonschema.Draft202012Validator(schema).validate(example)


REFUSED = [{"$nor": []}, {"year": {}}, {"year": None}, {"": 1}, {"year": {"over": 1}}]


@pytest.mark.parametrize("filter", REFUSED)
def test_filters_that_would_be_refused_do_not_follow_theirs(filter: dict[str, Any]):
    schema = {"$ref": "#/components/schemas/Filter", "components": DOCUMENT["components"]}
    assert not jsonschema.Draft202012Validator(schema).is_valid(filter)


def test_defaults_that_are_settings_are_left_to_the_service():
    given = create_app(Settings(worker="external", encoder="hf:org/net")).openapi()
    encoder = given["components"]["schemas"]["CollectionRequest"]["properties"]["encoder"]
    assert "default" not in encoder
    assert encoder["enum"] == ["hf:org/net"]


def test_the_command_prints_it_without_a_key(monkeypatch: pytest.MonkeyPatch, tmp_path: Any):
    monkeypatch.setenv("WINNOW_HOST", "0.0.0.0")
    monkeypatch.setenv("WINNOW_DATA_DIR", str(tmp_path))
    printed = CliRunner().invoke(app, ["openapi"])
    assert printed.exit_code == 0, printed.output
    assert json.loads(printed.stdout) == DOCUMENT
