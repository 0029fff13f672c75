"""A worker looks after several collections, lives beside a service, and leaves when it should."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from indexer.collection import (
    CollectionSchema,
    create_collection,
    drop_collection,
    list_collections,
)
from indexer.document import Document
from indexer.lock import Lock, Locked
from indexer.queue.contract import Job, upsert
from indexer.queue.logs import Logs
from indexer.worker import Worker, run_worker
from indexer.writer import Writer
from tests.indexer.reading import Reading, quick_directory
from tests.nets import WordOverlapEncoder, word_overlap

WORDS_ONLY = CollectionSchema(language="none", components=("bm25",))
VECTORS = CollectionSchema(components=("dense",), encoder="tiny")


@pytest.fixture
def root() -> Iterator[Path]:
    with quick_directory() as path:
        yield path


@pytest.fixture
def worker(root: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Worker]:
    monkeypatch.setattr("indexer.worker.SHORTEST_PAUSE", 0.0)
    worker = Worker(root, word_overlap)
    yield worker
    worker.close()


def make(root: Path, name: str, schema: CollectionSchema = WORDS_ONLY) -> Path:
    return create_collection(root, name, schema)


def write(directory: Path, name: str, text: str = "some words") -> str:
    log = Logs().open(directory)
    job, _ = log.append([upsert(Document(id=name, text=text))])
    log.close()
    return job


def job(directory: Path, name: str) -> Job:
    log = Logs().open(directory)
    found = log.job(name)
    log.close()
    return found


def exhaust(worker: Worker) -> None:
    while worker.turn():
        pass


def test_every_collection_gets_its_turn(root: Path, worker: Worker):
    one, two = make(root, "one"), make(root, "two")
    write(one, "a")
    write(two, "b")
    exhaust(worker)
    assert Reading(one).ids() == ["a"]
    assert Reading(two).ids() == ["b"]
    write(make(root, "three"), "c")
    exhaust(worker)
    assert Reading(root / "collections" / "three").ids() == ["c"]


def test_an_encoder_is_loaded_once_for_all_who_want_it(root: Path):
    loaded = []

    def load(role: str, name: str) -> Any:
        loaded.append((role, name))
        return word_overlap(role, name)

    worker = Worker(root, load)
    write(make(root, "words"), "a")
    exhaust(worker)
    assert loaded == []
    for name in ("one", "two"):
        write(make(root, name, CollectionSchema(encoder="tiny", sparse_encoder="small")), "a")
    exhaust(worker)
    assert loaded == [("dense", "tiny"), ("sparse", "small")]
    worker.close()


def test_a_missing_model_holds_up_its_own_collection_only(root: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("indexer.worker.SHORTEST_PAUSE", 0.0)
    encoders: dict[str, WordOverlapEncoder] = {}
    worker = Worker(root, lambda role, name: encoders[name])
    dense, words = make(root, "dense", VECTORS), make(root, "words")
    waiting = write(dense, "a")
    write(words, "b")
    exhaust(worker)
    assert Reading(words).ids() == ["b"]
    assert (job(dense, waiting).queued, job(dense, waiting).error) == (1, "'tiny'")
    encoders["tiny"] = WordOverlapEncoder()
    exhaust(worker)
    assert Reading(dense).ids() == ["a"]
    assert job(dense, waiting).error is None
    later = write(dense, "c")
    assert job(dense, later).error is None
    worker.close()


def test_a_corrupt_collection_is_reported_and_the_others_go_on(root: Path, worker: Worker):
    bad, good = make(root, "bad"), make(root, "good")
    (bad / "manifest-000000.json").write_bytes(b"{}")
    waiting = write(bad, "a")
    write(good, "b")
    exhaust(worker)
    assert Reading(good).ids() == ["b"]
    assert "does not match its checksum" in job(bad, waiting).error


def test_a_collection_of_another_worker_is_left_alone(root: Path, worker: Worker):
    directory = make(root, "c")
    waiting = write(directory, "a")
    other = Lock(directory)
    exhaust(worker)
    with pytest.raises(Locked):
        worker.claim()
    assert job(directory, waiting).error is None
    other.release()
    exhaust(worker)
    assert Reading(directory).ids() == ["a"]


def test_a_dropped_collection_is_let_go_and_its_name_may_come_back(
    root: Path, worker: Worker, caplog: pytest.LogCaptureFixture
):
    write(make(root, "c"), "old")
    exhaust(worker)
    drop_collection(root, "c")
    directory = make(root, "c")
    write(directory, "new")
    exhaust(worker)
    assert Reading(directory).ids() == ["new"]
    drop_collection(root, "c")
    exhaust(worker)
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


@pytest.mark.parametrize("recreated", [False, True])
def test_a_collection_dropped_in_the_middle_of_a_batch_is_no_error(
    root: Path,
    worker: Worker,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    recreated: bool,
):
    def drop_first(*arguments: object) -> object:
        monkeypatch.undo()
        drop_collection(root, "c")
        if recreated:
            write(make(root, "c"), "new")
        return build(*arguments)

    write(make(root, "c"), "old")
    build = Writer._build
    monkeypatch.setattr(Writer, "_build", drop_first)
    exhaust(worker)
    assert list_collections(root) == (["c"] if recreated else [])
    assert not [record for record in caplog.records if record.levelname == "ERROR"]
    exhaust(worker)
    if recreated:
        assert Reading(root / "collections" / "c").ids() == ["new"]


def test_each_generation_is_one_line(root: Path, worker: Worker, caplog: pytest.LogCaptureFixture):
    caplog.set_level("INFO")
    write(make(root, "c"), "a")
    exhaust(worker)
    assert [record.getMessage() for record in caplog.records] == [
        "c: generation 1: 1 documents, 1 passages, 1 segments, log position 1"
    ]


RUN = """
import sys
from pathlib import Path
from typing import Any
from indexer.worker import run_worker
run_worker(Path(sys.argv[1]), parent_pipe={})
"""


@pytest.fixture
def start(root: Path) -> Iterator[Callable[[bool], subprocess.Popen[bytes]]]:
    processes = []

    def start(parent_pipe: bool) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-c", RUN.format(parent_pipe), str(root)]
        processes.append(subprocess.Popen(command, stdin=subprocess.PIPE))
        return processes[-1]

    yield start
    for process in processes:
        process.kill()
        process.stdin.close()
        process.wait()


def until(true: Callable[[], bool]) -> None:
    end = time.monotonic() + 30
    while not true():
        assert time.monotonic() < end, "it did not happen within 30 s"
        time.sleep(0.02)


def test_a_worker_process_indexes_and_leaves_with_its_parent(
    root: Path, start: Callable[[bool], subprocess.Popen[bytes]]
):
    directory = make(root, "c")
    write(directory, "a")
    process = start(True)
    until(lambda: Reading(directory).ids() == ["a"])
    second = start(True)
    process.stdin.close()
    assert process.wait(10) == 0
    write(directory, "b")
    until(lambda: Reading(directory).ids() == ["a", "b"])
    os.kill(second.pid, signal.SIGTERM)
    assert second.wait(10) == 0


def test_a_second_worker_of_its_own_is_refused(root: Path):
    directory = make(root, "c")
    lock = Lock(directory)
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    try:
        with pytest.raises(Locked, match="collection 'c' has a writer already"):
            run_worker(root)
    finally:
        for number, handler in zip((signal.SIGTERM, signal.SIGINT), before, strict=True):
            signal.signal(number, handler)
        lock.release()
