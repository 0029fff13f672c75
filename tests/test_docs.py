"""The prose is true: stages and routes are in the docs, and the README's commands exist."""

import json
import re
from dataclasses import fields
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import pytest
from pydantic import BaseModel, Field
from typer.main import get_command

from models.cross_recipe import Recipe as CrossRecipe
from models.in_context.recipe import Recipe
from models.late_recipe import HeadSpec
from models.late_recipe import Recipe as LateRecipe
from models.sparse_recipe import Recipe as SparseRecipe
from service.app import create_app
from service.cli import app
from service.engine import NAMED
from service.error_shapes import WIRES
from service.errors import (
    BusyError,
    DeadlineError,
    EmptyInputError,
    EncoderError,
    InvalidError,
    KeyMissingError,
    MalformedError,
    ModelError,
    NetFailedError,
    RateError,
    ScopeError,
    ServiceError,
    TooLargeError,
    TooLongError,
    UnknownTokenError,
)
from service.health import CHECKS, Check
from service.model_names import SERVED
from service.settings import Settings
from service.stages import AnyStage, Bm25, Dense, FastForward, Fuse, Group, InContext, Late, Sparse
from service.types import Hits, Search, Stage
from tests.exposition import exposed

ROOT = Path(__file__).parent.parent
PROSE = [
    "README.md",
    "ARCHITECTURE.md",
    "CHANGELOG.md",
    *(f"docs/{p.name}" for p in (ROOT / "docs").glob("*.md")),
]


def read(name: str) -> str:
    return (ROOT / name).read_text()


def section(name: str, title: str) -> str:
    """A part of a document, up to the next heading of its level."""
    return read(name).split(f"\n## {title}\n")[1].split("\n## ")[0]


@pytest.mark.parametrize("key", [field.name for field in fields(Recipe)])
def test_every_key_of_a_recipe_for_reading_in_context_is_documented(key: str):
    assert f"| `{key}` |" in read("docs/weights.md")


@pytest.mark.parametrize("key", sorted(CrossRecipe.model_fields))
def test_every_key_of_a_recipe_of_a_cross_encoder_is_documented(key: str):
    default = json.dumps(CrossRecipe().model_dump(mode="json")[key]).replace(".0", "").replace("null", "none")
    text = section("docs/weights.md", "Cross-encoders")
    assert re.search(rf"^\| `{key}` \| `?{re.escape(default)}`? \|", text, re.MULTILINE)


@pytest.mark.parametrize(
    ("title", "recipe"), [("Late interaction", LateRecipe), ("Sparse encoders", SparseRecipe)]
)
def test_every_key_of_a_recipe_of_other_encoders_is_documented(title: str, recipe: type[BaseModel]):
    rows = re.findall(r"^\| (`\w.*?) \|", section("docs/weights.md", title), re.MULTILINE)
    assert set(re.findall(r"`(\w+)`", " ".join(rows))) == set(recipe.model_fields)


@pytest.mark.parametrize("key", sorted(HeadSpec.model_fields))
def test_every_key_of_a_head_is_documented(key: str):
    assert f"`{key}`" in section("docs/weights.md", "Late interaction")


@pytest.mark.parametrize("stage", get_args(get_args(AnyStage)[0]), ids=lambda stage: stage.__name__)
def test_every_stage_and_its_parameters_are_documented(stage):
    text = read("docs/pipelines.md")
    assert f"**`{stage.model_fields['stage'].default}`**" in text
    for parameter in set(stage.model_fields) - {"stage"}:
        assert f"`{parameter}" in text or f'"{parameter}"' in text, parameter


@pytest.mark.parametrize("name", sorted(NAMED))
def test_every_named_pipeline_is_documented(name: str):
    assert f"| `{name}`" in read("docs/pipelines.md")


def test_every_route_is_documented_and_every_documented_route_exists(tmp_path: Path):
    paths = create_app(Settings(data_dir=tmp_path, worker="external")).openapi()["paths"]
    served = {f"{method.upper()} {path}" for path, methods in paths.items() for method in methods}
    documented = set(re.findall(r"`((?:GET|PUT|POST|DELETE) /[^`?]*)`", read("docs/http.md")))
    assert documented == served


def metrics_in_the_docs() -> dict[str, set[str]]:
    """The names in the tables of docs/metrics.md, with their labels."""
    rows = re.findall(r"^\| (`\w.*?) \| \w+ \|(.*?)\|", read("docs/metrics.md"), re.MULTILINE)
    return {
        name: set(re.findall(r"`(\w+)`", labels))
        for names, labels in rows
        for name in re.findall(r"`(\w+)`", names)
    }


def test_every_metric_is_documented_and_every_documented_metric_exists():
    kinds = dict(exposed())
    assert set(metrics_in_the_docs()) == set(kinds)
    rows = re.findall(r"^\| (`\w.*?) \| (\w+) \|", read("docs/metrics.md"), re.MULTILINE)
    said = {name: kind for names, kind in rows for name in re.findall(r"`(\w+)`", names)}
    assert said == kinds


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.name)
def test_every_check_is_documented(check: Check):
    state = "unready" if check.holds_up else "degraded"
    assert re.search(rf"^\| `{check.name}` \| {state} \|", read("docs/http.md"), re.MULTILINE)


@pytest.mark.parametrize("served", SERVED)
def test_every_model_is_documented(served: str):
    assert re.search(rf"^\| [^|]*`{served}`", read("docs/http.md"), re.MULTILINE)


ERRORS: dict[str, ServiceError] = {
    "not JSON": MalformedError(""),
    "a field is wrong, or beyond a limit": InvalidError(""),
    "a text is too long": TooLongError("text", 0, ""),
    "a token is not of the vocabulary": UnknownTokenError(""),
    "nothing to encode": EmptyInputError(""),
    "no such `model`, or it does not do this": ModelError(""),
    "key missing or wrong": KeyMissingError(""),
    "the key lacks the scope `read`": ScopeError(""),
    "more requests than the key may make in a time": RateError(""),
    "the body is too large": TooLargeError(""),
    "overloaded: try again after `Retry-After` seconds": BusyError(""),
    "the model cannot be loaded": EncoderError(""),
    "the model failed": NetFailedError(""),
    "out of time (`WINNOW_MODEL_TIMEOUT_MS`)": DeadlineError(""),
}


@pytest.mark.parametrize("said", ERRORS)
def test_errors_of_model_endpoints_are_as_documented(said: str):
    error = ERRORS[said]
    (row,) = re.findall(rf"^\| {re.escape(said)} \|(.*)\|$", read("docs/http.md"), re.MULTILINE)
    for cell, path in zip(row.split("|"), ["/score", "/embed", "/v1/rerank", "/v2/rerank"], strict=True):
        if told := cell.split():
            assert int(told[0]) == WIRES[path].status(error.status, error.code)
            body = json.dumps(WIRES[path].body(error))
            assert not told[1:] or f'"{told[1].strip("`")}"' in body


def test_the_commands_in_the_readme_exist():
    commands = get_command(app).commands
    shown = re.findall(r"^\s*winnow (\w+)(.*)$", read("README.md"), re.MULTILINE)
    assert shown
    for name, rest in shown:
        command = commands[name]
        if inner := getattr(command, "commands", None):  # a command of several, as `train` is
            command = inner[rest.split()[0]]
        options = {option for parameter in command.params for option in parameter.opts}
        assert set(re.findall(r"(?<=\s)--?[a-z][a-z-]*", rest)) <= options, f"winnow {name}{rest}"


def test_the_pipelines_in_the_readme_are_those_of_the_code():
    shown = re.findall(r"^\| `(\w+)` \| `(\(.*\))` \|", read("README.md"), re.MULTILINE)
    names = {
        stage.__name__: stage for stage in (Bm25, Dense, FastForward, Fuse, Group, InContext, Late, Sparse)
    }
    assert {name: eval(code, names) for name, code in shown} == dict(NAMED)


async def test_the_stage_shown_in_the_readme_works():
    (code,) = re.findall(r"```python\n(.*?)```", read("README.md"), re.DOTALL)
    names = {
        "Stage": Stage,
        "Search": Search,
        "Hits": Hits,
        "Literal": Literal,
        "Field": Field,
        "__name__": "cut",
    }
    exec(code, names)
    hits = Hits(np.array([3, 1, 2]), np.array([1.0, 0.6, 0.4], np.float32), {})
    assert (await names["Cut"]()(None, hits)).seqs.tolist() == [3, 1]
    assert len(await names["Cut"]()(None, hits.take(slice(0)))) == 0


def test_the_make_targets_in_the_readme_exist():
    targets = set(re.findall(r"^([a-z-]+):", read("Makefile"), re.MULTILINE))
    assert set(re.findall(r"make ([a-z-]+)", read("README.md"))) <= targets


@pytest.mark.parametrize("name", PROSE)
def test_links_and_paths_lead_somewhere(name: str):
    folder = (ROOT / name).parent
    links = [link for link in re.findall(r"\]\(([^)#]+)[^)]*\)", read(name)) if "://" not in link]
    assert [link for link in links if not (folder / link).exists()] == []
    named = re.findall(r"`((?:models|indexer|service|tests|deploy|benchmarks|docs)/[\w./-]*)`", read(name))
    assert [path for path in named if not (ROOT / path).exists()] == []


def test_every_test_named_in_the_prose_exists():
    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", "".join(map(read, PROSE)))
    assert len(named) > 40
    missing = [f"{file}::{name}" for file, name in named if f"def {name}(" not in read(file)]
    assert missing == []


def test_every_fault_has_a_test_that_runs_by_default():
    rows = re.findall(r"^\| (\d+) \|(.*)\|$", read("docs/reliability.md"), re.MULTILINE)
    assert [int(number) for number, _ in rows] == list(range(1, 21))
    assert [number for number, row in rows if "`tests/" not in row.split("|")[2]] == []


def test_decisions_are_numbered_apart():
    numbers = [path.name[:4] for path in (ROOT / "docs" / "decisions").glob("*.md")]
    assert len(numbers) == len(set(numbers))
