"""The commands as a user types them, on a corpus of four documents and without a net where none is needed."""

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from indexer.collection import collection_path, create_collection
from indexer.lock import Lock
from indexer.segment.manifest import CollectionSchema
from indexer.sources import read_documents
from indexer.worker import drain
from service.cli import app
from service.commands import quickstart
from service.commands.client import Client
from service.commands.common import stderr
from tests.nets import SlowEncoder, WordOverlapKeysNet, loading, word_overlap
from tests.serving import indexing, serving

TEXTS = {
    "tides": "The moon pulls the sea and makes the tide.",
    "rain": "Clouds rain on the sea.",
    "cats": "A cat sleeps in the sun.",
    "dogs": "A dog swims in the sea.",
}
LEXICAL = '{"components": ["bm25"]}'


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """A BEIR folder in which every question has its answer."""
    folder = tmp_path / "corpus"
    folder.mkdir()
    lines = [json.dumps({"_id": key, "title": "", "text": text}) for key, text in TEXTS.items()]
    (folder / "corpus.jsonl").write_text("\n".join(lines))
    queries = {"q1": "moon tide", "q2": "rain clouds", "q3": "cat", "unjudged": "dog"}
    (folder / "queries.jsonl").write_text(
        "\n".join(json.dumps({"_id": key, "text": text}) for key, text in queries.items())
    )
    (folder / "qrels.tsv").write_text("query-id\tcorpus-id\tscore\nq1\ttides\t1\nq2\train\t1\nq3\tcats\t1\n")
    return folder


@pytest.fixture(autouse=True)
def _own_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No setting of the machine reaches a command, and no command reaches the user's cache."""
    for name in ("WINNOW_API_KEY", "WINNOW_DATA_DIR", "WINNOW_HOST", "WINNOW_PORT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    # Commands set these for their process where they are unset, and this process is that of all tests.
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "false")
    monkeypatch.setenv("NUMBA_CACHE_DIR", os.environ.get("NUMBA_CACHE_DIR", ""))


def winnow(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def succeeded(result: Result) -> str:
    assert result.exit_code == 0, result.output
    return result.stdout


def index(corpus: Path, data: Path, *more: str) -> Result:
    return winnow("index", corpus, "-c", "four", "--data-dir", data, "--schema", LEXICAL, *more)


def search(data: Path, query: str) -> list[str]:
    answer = winnow("search", query, "-c", "four", "--data-dir", data, "--json")
    return [hit["id"] for hit in json.loads(succeeded(answer))["hits"]]


@pytest.mark.parametrize(
    "command", ["serve", "worker", "index", "search", "evaluate", "heads", "inspect", "quickstart", "keys"]
)
def test_every_command_explains_itself(command: str):
    text = succeeded(winnow(command, "--help"))
    assert "Usage" in text


def test_index_then_search(corpus: Path, tmp_path: Path):
    assert "4 documents are in collection 'four'" in index(corpus, tmp_path / "data").stderr
    assert search(tmp_path / "data", "moon tide") == ["tides"]
    shown = succeeded(winnow("search", "moon tide", "-c", "four", "--data-dir", tmp_path / "data"))
    assert "1. tides" in shown
    assert "pulls the sea" in shown


def test_loading_takes_nothing_from_the_time_of_a_search(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def slowly(role: str, name: str) -> Any:
        time.sleep(0.4)
        return word_overlap(role, name)

    monkeypatch.setattr("service.commands.local.loader_here", lambda cache: slowly)
    monkeypatch.setenv("WINNOW_TIMEOUT_MS", "300")
    monkeypatch.setenv("WINNOW_SPARSE_ENCODER", "pypi:words/net")  # one without a table
    data = tmp_path / "data"
    winnow("index", corpus, "-c", "four", "--data-dir", data)
    for pipeline in ("balanced", "sparse"):
        asked = ("search", "moon tide", "-c", "four", "--data-dir", data, "--pipeline", pipeline, "--json")
        answer = json.loads(succeeded(winnow(*asked)))
        assert (answer["degraded"], answer["hits"][0]["id"]) == ([], "tides")


def test_a_search_here_is_not_logged_as_slow(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    data = tmp_path / "data"
    monkeypatch.setattr("service.commands.local.loader_here", lambda cache: loading(dense=SlowEncoder()))
    monkeypatch.setenv("WINNOW_SLOW_SEARCH_MS", "10")
    winnow("index", corpus, "-c", "four", "--data-dir", data, "--schema", '{"components": ["dense"]}')
    asked = ("search", "moon tide", "-c", "four", "--data-dir", data, "--json")
    assert json.loads(succeeded(winnow(*asked)))["took_ms"] > 10
    assert [record for record in caplog.records if record.name == "service.kept"] == []


def test_a_search_for_words_loads_no_net(corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    data = tmp_path / "data"
    monkeypatch.setattr("service.commands.local.loader_here", lambda cache: word_overlap)
    winnow("index", corpus, "-c", "four", "--data-dir", data)
    monkeypatch.setattr("service.commands.local.loader_here", lambda cache: None)
    asked = ("search", "moon tide", "-c", "four", "--data-dir", data, "--pipeline", "bm25", "--json")
    assert json.loads(succeeded(winnow(*asked)))["hits"][0]["id"] == "tides"


def test_a_new_collection_may_have_another_language(tmp_path: Path):
    (tmp_path / "a.jsonl").write_text('{"id": "katzen", "text": "Die Katzen schlafen."}')
    index(tmp_path / "a.jsonl", tmp_path / "data", "--language", "de")
    assert search(tmp_path / "data", "eine Katze") == ["katzen"]


def test_indexing_again_replaces(corpus: Path, tmp_path: Path):
    index(corpus, tmp_path / "data")
    (corpus / "corpus.jsonl").write_text('{"id": "tides", "text": "Nothing of the kind."}')
    succeeded(index(corpus, tmp_path / "data"))
    assert search(tmp_path / "data", "moon tide") == []
    assert search(tmp_path / "data", "rain") == ["rain"]


def test_indexing_beside_a_worker_waits_for_it(corpus: Path, tmp_path: Path):
    data = tmp_path / "data"
    directory = create_collection(data, "four", CollectionSchema(components=("bm25",)))
    lock = Lock(directory)

    def other_worker() -> None:
        lock.release()
        drain(data, "four")

    timer = threading.Timer(0.5, other_worker)
    timer.start()
    result = index(corpus, data)
    timer.join()
    assert "A worker has this collection" in result.stderr
    assert search(data, "cat") == ["cats"]


def test_a_second_worker_is_refused(tmp_path: Path):
    lock = Lock(create_collection(tmp_path / "data", "four", CollectionSchema()))
    command = [sys.executable, "-m", "service.cli", "worker", "--data-dir", str(tmp_path / "data")]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60)
    lock.release()
    assert result.returncode == 1
    assert "'four' has a writer already" in result.stderr
    assert "Traceback" not in result.stderr


def test_a_bad_source_is_one_sentence(corpus: Path, tmp_path: Path):
    (corpus / "corpus.jsonl").write_text('{"id": "a"}')
    result = index(corpus, tmp_path / "data")
    assert result.exit_code == 1
    assert "corpus.jsonl:1: text: Field required" in result.stderr
    assert "Traceback" not in result.output


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["index", "missing", "-c", "four"], 1, "missing does not exist"),
        (["search", "tide", "-c", "none"], 1, "there is no collection 'none'"),
        (["search", "tide", "-c", "four", "--url", "http://127.0.0.1:9"], 1, "no service answers"),
        (["inspect"], 1, "has no collection"),
        (["index", "corpus", "-c", "../x"], 1, "cannot name a collection"),
        (["index", "corpus", "-c", "four", "--schema", "[]"], 2, "must be a JSON object"),
        (["index", "corpus", "-c", "four", "--schema", '{"k1": -1}'], 1, "k1: "),
        (["index", "corpus", "-c", "four", "--language", "klingon"], 1, "unknown language 'klingon'"),
        (["serve", "--host", "0.0.0.0"], 2, "without an API key"),
        (["serve", "--data-dir", "corpus/qrels.tsv"], 1, "cannot use corpus/qrels.tsv for data"),
        (["evaluate", "corpus", "--pipeline", "magic"], 2, "there is no pipeline 'magic'"),
    ],
)
def test_errors_say_what_to_do(
    corpus: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    code: int,
    message: str,
):
    monkeypatch.chdir(corpus.parent)
    result = winnow(*arguments)
    assert result.exit_code == code, result.output
    assert message in " ".join(result.stderr.replace("│", " ").split())


def test_inspect_counts_and_finds_a_flipped_byte(corpus: Path, tmp_path: Path):
    data = tmp_path / "data"
    index(corpus, data)
    text = succeeded(winnow("inspect", "--data-dir", data, "--verify"))
    assert "4 documents, 4 passages, 0 operations waiting" in " ".join(text.split())
    assert "Every file matches" in text

    victim = next(collection_path(data, "four").glob("segments/*/lexical*"))
    content = bytearray(victim.read_bytes())
    content[len(content) // 2] ^= 1
    victim.write_bytes(content)
    result = winnow("inspect", "--data-dir", data, "--verify")
    assert result.exit_code == 1
    assert victim.name in result.stdout.replace("\n", "")


def test_evaluate_prints_json_and_nothing_else(corpus: Path):
    result = json.loads(succeeded(winnow("evaluate", corpus, "--pipeline", "bm25", "--json")))
    assert result["dataset"] == "corpus"
    report = result["pipelines"]["bm25"]
    measures = {"nDCG@10", "MRR@10", "Recall@100", "MAP", "p50_ms", "p95_ms"}
    assert set(report) == {*measures, "bytes_per_document", "degraded"}
    assert (report["nDCG@10"], report["degraded"]) == (1.0, 0)
    assert report["bytes_per_document"] > 100


def test_evaluate_shows_a_table(corpus: Path):
    text = succeeded(winnow("evaluate", corpus, "--pipeline", "bm25", "--queries", "2"))
    assert "corpus, 2 queries" in text
    assert "bm25: group" in text


@contextmanager
def served(data: Path) -> Iterator[str]:
    """A service on a free port, and a worker beside it."""
    with serving(data) as (url, _), indexing(data):
        yield url


def test_index_and_search_through_a_service(corpus: Path, tmp_path: Path):
    with served(tmp_path / "data") as url:
        result = winnow("index", corpus, "-c", "four", "--url", url)
        assert "4 documents are in collection 'four'" in result.stderr
        answer = json.loads(succeeded(winnow("search", "cat sleeps", "-c", "four", "--url", url, "--json")))
        assert answer["hits"][0]["id"] == "cats"
        assert answer["stages"][0]["stage"] == "fuse"
        failed = winnow("search", "cat", "-c", "four", "--url", url, "--pipeline", "magic")
        assert failed.exit_code == 1
        assert "there is no pipeline 'magic'" in failed.stderr


@pytest.fixture
def documentation(monkeypatch: pytest.MonkeyPatch, corpus: Path) -> None:
    """Four documents in place of those of the installed packages."""
    monkeypatch.setattr("indexer.python_docs.python_documents", lambda: read_documents(corpus))


@pytest.mark.usefixtures("documentation")
def test_a_first_run_indexes_and_a_second_does_not(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    sent = tmp_path / "sent"
    with served(tmp_path / "data") as url, Client(url) as client:
        quickstart.fill(client, sent, stderr())
        assert [(c["name"], c["documents"], c["generation"]) for c in client.collections()] == [
            ("python", 4, 1)
        ]
        assert not sent.exists()
        assert "4/4" in capsys.readouterr().err

        quickstart.fill(client, sent, stderr())
        assert client.collections()[0]["generation"] == 1
        assert capsys.readouterr().err == ""


@pytest.mark.usefixtures("documentation")
def test_a_first_run_that_was_interrupted_goes_on(tmp_path: Path):
    sent = tmp_path / "sent"
    sent.write_text("3")  # as if killed after three were accepted
    with served(tmp_path / "data") as url, Client(url) as client:
        client.ensure_collection("python", {})
        quickstart.fill(client, sent, stderr())
        assert client.collections()[0]["documents"] == 1
        assert client.search("python", {"query": "dog"})["hits"][0]["id"] == "dogs"
        assert not sent.exists()


@pytest.mark.usefixtures("documentation")
def test_other_collections_are_left_alone(tmp_path: Path):
    with served(tmp_path / "data") as url, Client(url) as client:
        client.ensure_collection("mine", {})
        quickstart.fill(client, tmp_path / "sent", stderr())
        assert [c["name"] for c in client.collections()] == ["mine"]


def test_inspect_counts_and_lists_what_was_pruned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    data, source = tmp_path / "data", tmp_path / "a.jsonl"
    lines = [{"id": "poor", "text": "so so so so"}, {"id": "rich", "text": "tides rise"}]
    source.write_text("\n".join(json.dumps(line) for line in lines))
    monkeypatch.setattr("service.commands.local.loader_here", lambda cache: word_overlap)
    schema = json.dumps({"components": ["sparse"], "sparse_quality": "itn", "least_quality": 0.5})
    succeeded(winnow("index", source, "-c", "c", "--data-dir", data, "--schema", schema))
    text = succeeded(winnow("inspect", "--data-dir", data, "--pruned"))
    assert "pruned" in text
    assert "sparse" in text
    assert "poor\t0\t11\t0.2500" in text
    assert "rich" not in text


def test_index_says_beforehand_how_much_room_keys_take(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    data, source = tmp_path / "data", tmp_path / "a.jsonl"
    lines = [json.dumps({"id": str(n), "title": "Of tides", "text": "Tides rise."}) for n in range(300)]
    source.write_text("\n".join(lines))
    monkeypatch.setattr("service.commands.local.loader_here", lambda cache: word_overlap)
    schema = json.dumps({"components": ["bm25", "keys"]})
    result = winnow("index", source, "-c", "c", "--data-dir", data, "--schema", schema)
    said = " ".join(result.stderr.split())
    # every second document is looked at: four words, each with three keys of 64 codes and a scale, 12 a row
    assert "Keys of 300 documents will take about 242.8 kB, by 150 of them: 4 tokens a passage" in said
    assert "longer" not in said
    assert said.index("Keys of 300") < said.index("300 documents are in collection")
    (keys,) = collection_path(data, "c").glob("segments/*/keys.bin")
    assert keys.stat().st_size == pytest.approx(242_000, rel=0.01)
    table = succeeded(winnow("inspect", "--data-dir", data))
    assert "keys" in table
    assert "242." in table

    source.write_text(json.dumps({"id": "long", "text": "tide " * 20}))
    result = winnow("index", source, "-c", "c", "--data-dir", data)
    assert "1 of 1 passages are longer than the model is given to read" in result.stderr

    monkeypatch.setattr("service.commands.local.loader_here", lambda cache: _another)
    assert "another version of" in winnow("index", source, "-c", "c", "--data-dir", data).stderr


def _another(role: str, name: str) -> Any:
    return WordOverlapKeysNet("another")
