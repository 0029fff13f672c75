"""`winnow train` from a folder to a net that searches, with real recipes on tiny nets."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from service.cli import app
from service.commands.local import loader_here
from tests.nets import WORDS, tiny_encoder, tiny_sparse_encoder, word_overlap
from tests.service.commands.beir import write_beir

NOUNS = WORDS[7:]
PAIRS = [f"{a} {b}" for a in NOUNS for b in NOUNS if a < b]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """For each pair of nouns a text and a question that is answered by it."""
    corpus = {pair: ("", f"The {pair.replace(' ', ' and the ')}.") for pair in PAIRS}
    return write_beir(
        tmp_path / "nouns", corpus, {pair: pair for pair in PAIRS}, {pair: {pair: 1} for pair in PAIRS}
    )


@pytest.fixture(autouse=True)
def _teachers_count_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nets of packages are replaced, and those of folders are as they are."""

    def loader(cache: Path) -> Any:
        load = loader_here(cache)
        return lambda role, name: word_overlap(role, name) if name.startswith("pypi:") else load(role, name)

    monkeypatch.setattr("service.commands.trial_run.loader_here", loader)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for name in ("HF_HUB_OFFLINE", "TOKENIZERS_PARALLELISM"):
        monkeypatch.setenv(name, "1")
    monkeypatch.setenv("NUMBA_CACHE_DIR", os.environ.get("NUMBA_CACHE_DIR", ""))


@pytest.mark.parametrize(
    ("kind", "make", "options"),
    [("sparse", tiny_sparse_encoder, []), ("late", tiny_encoder, ["--set", "dim=16"])],
)
def test_a_net_is_trained_from_a_folder_and_found_to_search(
    kind: str, make: Any, options: list[str], data: Path, tmp_path: Path
) -> None:
    base, out = make(tmp_path / "base"), tmp_path / "out"
    arguments = ["train", kind, "--data", data, "--out", out, "--base", base, "--held-out", "0.5"]
    arguments += ["--steps", "4", "--batch", "2", "--set", "validate=2", "--set", "documents=4", "--json"]
    result = CliRunner().invoke(app, [*map(str, arguments), *options])
    assert result.exit_code == 0, result.output
    said = json.loads(result.stdout)
    (gain,) = said["gain"]
    assert said["steps"] == 4
    assert gain["questions"] >= 3
    assert 0 <= gain["after"] <= 1
    card = (out / "README.md").read_text()
    assert "| nouns | not stated | not stated |" in card
    assert f"Begun with `{base}`" in card
