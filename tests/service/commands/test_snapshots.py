"""`winnow backup`, `restore` and `snapshots`, on a data directory and by a service."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from indexer.collection import collection_path, create_collection, drop_collection
from indexer.document import Document
from indexer.queue.contract import upsert
from indexer.queue.logs import Logs
from indexer.segment.manifest import CollectionSchema
from indexer.worker import drain
from indexer.workplace import workplace
from service.cli import app
from tests.indexer.reading import Reading
from tests.nets import word_overlap
from tests.serving import serving

SCHEMA = CollectionSchema(language="none", components=("bm25",))
WHERE = ("--collection", "c", "--repository", "kept")


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data directory with the collection `c` of one document, and a repository `kept`."""
    # Commands set these for their process where they are unset, and this process is that of all tests.
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "false")
    monkeypatch.setenv("WINNOW_REPOSITORIES", json.dumps({"kept": str(tmp_path / "kept")}))
    root = tmp_path / "data"
    log = Logs().open(create_collection(root, "c", SCHEMA))
    log.append([upsert(Document(id="a", text="moon"))])
    log.close()
    drain(root, "c", word_overlap)
    return root


def winnow(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def succeeded(result: Result) -> str:
    assert result.exit_code == 0, result.output
    return result.stdout


def failed(result: Result) -> str:
    assert result.exit_code == 1, result.output
    return " ".join(result.stderr.split())


def ids(root: Path, name: str) -> list[str]:
    return Reading(collection_path(root, name)).ids()


def listed(*where: str | Path) -> list[str]:
    return [
        each["name"]
        for each in json.loads(succeeded(winnow("snapshots", *WHERE, *where, "--json")))["snapshots"]
    ]


@pytest.mark.parametrize("served", [False, True])
def test_from_backup_to_restored_and_removed(root: Path, served: bool):
    if not served:
        return _there_and_back(root, "--data-dir", root)
    with serving(root, repositories={"kept": str(root.parent / "kept")}) as (url, _):
        return _there_and_back(root, "--url", url)


def _there_and_back(root: Path, *where: str | Path) -> None:
    made = winnow("backup", *WHERE, *where, "--name", "first")
    assert "first: 1 documents" in made.stderr
    assert "of which" in made.stderr
    second = json.loads(succeeded(winnow("backup", *WHERE, *where, "--name", "second", "--json")))
    assert (second["copied_bytes"], second["removed"]) == (0, [])
    assert listed(*where) == ["second", "first"]
    assert "second" in succeeded(winnow("snapshots", *WHERE, *where))
    succeeded(winnow("restore", "first", *WHERE, *where, "--into", "copy"))
    assert ids(root, "copy") == ids(root, "c") == ["a"]
    drop_collection(root, "c")
    assert "Collection 'c' is as it was in first" in winnow("restore", "first", *WHERE, *where).stderr
    assert ids(root, "c") == ["a"]
    assert "first was removed" in winnow("backup", *WHERE, *where, "--name", "third", "--keep", "2").stderr
    succeeded(winnow("snapshots", *WHERE, *where, "--remove", "second"))
    assert listed(*where) == ["third"]
    assert "no snapshot 'first'" in failed(winnow("restore", "first", *WHERE, *where))


def test_what_is_wrong_is_one_sentence(root: Path):
    here = ("--data-dir", root)
    assert "known are kept" in failed(winnow("backup", "-c", "c", "-r", "nowhere", *here))
    assert "no collection 'x'" in failed(winnow("backup", "-c", "x", "-r", "kept", *here))
    assert "can name neither" in failed(winnow("backup", *WHERE, *here, "--name", "../x"))
    assert "can name neither" in failed(winnow("snapshots", "-c", "../x", "-r", "kept", *here))
    succeeded(winnow("backup", *WHERE, *here, "--name", "first"))
    assert "can name neither" in failed(winnow("restore", "first", *WHERE, *here, "--into", "../x"))
    assert "already" in failed(winnow("backup", *WHERE, *here, "--name", "first"))
    with workplace(root, "c"):
        assert "under way" in failed(winnow("restore", "first", *WHERE, *here))
    (root.parent / "kept" / "c" / "snapshots" / "first.json").write_text("{}")
    assert "cannot be read" in failed(winnow("restore", "first", *WHERE, *here))
    assert "damaged: snapshot 'first'" in succeeded(winnow("snapshots", *WHERE, *here))


@pytest.mark.parametrize("command", ["backup", "restore", "snapshots"])
def test_every_command_explains_itself(command: str):
    assert "--repository" in succeeded(winnow(command, "--help"))
