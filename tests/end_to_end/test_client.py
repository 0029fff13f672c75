"""A Python client generated from the document that a running service gives, used as docs/clients.md says.

The code in that file is what runs here, and what mypy checks against the client's types.
"""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any, get_args

import httpx
import pytest

from service.stages import AnyStage, Fuse
from service.types import Stage
from tests.serving import indexing, serving

ROOT = Path(__file__).parents[2]
KEY = "choose-one"
STAGES: tuple[type[Stage], ...] = get_args(get_args(AnyStage)[0])
USE, STREAM = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "clients.md").read_text(), re.DOTALL)


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    data = tmp_path_factory.mktemp("client")
    with serving(data, api_key=KEY) as (url, _), indexing(data):
        yield url


@pytest.fixture(scope="module")
def generated(url: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The folder of a client of that service, and what its generator had to say."""
    folder = tmp_path_factory.mktemp("generated")
    key = {"Authorization": f"Bearer {KEY}"}
    openapi = httpx.get(f"{url}/openapi.json", headers=key, timeout=60).raise_for_status()
    (folder / "openapi.json").write_bytes(openapi.content)
    config = ROOT / "docs" / "client.yml"
    options = ["--path", "openapi.json", "--config", str(config), "--meta", "uv", "--output-path", "client"]
    tools = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"  # it runs ruff
    done = run(folder, "openapi_python_client", "generate", *options, env={**os.environ, "PATH": tools})
    return folder / "client", done.stdout + done.stderr


@pytest.fixture
def client(generated: tuple[Path, str], monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the client, which can be imported."""
    monkeypatch.syspath_prepend(generated[0])
    return generated[0]


@pytest.fixture
def names(url: str, client: Path) -> Iterator[dict[str, Any]]:
    """What the code of the documentation has made, once it has run."""
    names: dict[str, Any] = {}
    exec(USE.replace("http://127.0.0.1:8080", url), names)
    yield names
    names["client"].get_httpx_client().close()


def run(folder: Path, module: str, *arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", module, *arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, **options)
    assert done.returncode == 0, done.stdout + done.stderr
    return done


def test_only_ndjson_is_left_out_of_the_client(generated: tuple[Path, str]):
    _, said = generated
    assert said.count("WARNING parsing") == 1
    assert "Unsupported content type application/x-ndjson" in said


def test_the_client_and_the_code_that_uses_it_are_typed(client: Path):
    (client / "use.py").write_text(USE)
    run(client, "mypy", "--strict", "--cache-dir", str(client / ".mypy_cache"), "use.py", "winnow_client")


def test_the_client_does_what_the_documentation_says(names: dict[str, Any]):
    assert [hit.id for hit in names["found"].hits] == ["tides", "rain"], "the other shares no word"
    first, second = names["found"].hits
    assert 0 < second.score < first.score
    assert first.scores["bm25"] > 0
    assert "bm25" not in second.scores
    assert first.metadata["year"] == 2021
    assert [stage.stage for stage in names["found"].stages] == ["fuse", "group"]
    assert (names["missing"].status, names["missing"].code) == (404, "not_found")
    assert sum(number**2 for number in names["vectors"].data[0].embedding) == pytest.approx(1, abs=1e-3)
    assert names["client"].get_httpx_client().get("/v1/collections").json() == {"collections": []}


def test_documents_can_be_streamed(names: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "nature.ndjson").write_text(
        '{"id": "sun", "text": "The sun."}\n{"id": "sea", "text": "Sea."}\n'
    )
    monkeypatch.chdir(tmp_path)
    made = names["create_collection"].sync_detailed("nature", client=names["client"])
    assert made.status_code == 201, "a body may be left out"
    exec(STREAM, names)
    assert names["streamed"].json()["accepted"] == 2


def test_what_the_client_says_of_a_stage_by_itself_is_taken(client: Path):
    """A generated client spells out the defaults that it knows."""
    models = import_module("winnow_client.models")
    for stage in set(STAGES) - {Fuse}:  # this one is given its inputs above
        assert stage.model_validate(getattr(models, stage.__name__)().to_dict()) == stage()
