"""Workers share the collections of a directory over Redis, and none has another's."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from indexer.collection import CollectionSchema, create_collection, drop_collection
from indexer.document import Document
from indexer.queue.contract import LogUnavailable, upsert
from indexer.queue.logs import Logs
from indexer.worker import Worker
from tests.indexer.reading import Reading, quick_directory
from tests.nets import word_overlap
from tests.redis_server import RedisServer

SCHEMA = CollectionSchema(language="none", components=("bm25",))


@pytest.fixture
def root() -> Iterator[Path]:
    with quick_directory() as path:
        yield path


@pytest.fixture
def logs(redis: RedisServer) -> Logs:
    return Logs(redis.url)


@pytest.fixture
def workers(root: Path, logs: Logs, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Worker, Worker]]:
    monkeypatch.setattr("indexer.worker.SHARED_PAUSE", 0.05)
    monkeypatch.setattr("indexer.worker.SHORTEST_PAUSE", 0.01)
    monkeypatch.setattr("indexer.sharing.IDLE_SECONDS", 0.1)
    pair = Worker(root, word_overlap, logs), Worker(root, word_overlap, logs)
    yield pair
    for worker in pair:
        worker.close()


def write(logs: Logs, directory: Path, *names: str) -> None:
    logs.open(directory).append([upsert(Document(id=name, text="some words")) for name in names])


def turns(worker: Worker, done: Callable[[], bool]) -> None:
    """Give a worker turns until something is so."""
    until = time.monotonic() + 20
    while not done():
        assert time.monotonic() < until
        worker.turn()
        time.sleep(0.01)


def test_a_collection_that_is_let_go_is_taken_by_another(
    root: Path, logs: Logs, workers: tuple[Worker, Worker]
):
    one, two = workers
    directory = create_collection(root, "c", SCHEMA)
    write(logs, directory, "a")
    turns(one, lambda: Reading(directory).ids() == ["a"])
    write(logs, directory, "b")
    assert not two.turn(), "the first worker has it still"
    assert Reading(directory).ids() == ["a"]
    turns(one, lambda: Reading(directory).ids() == ["a", "b"])
    write(logs, directory, "c")
    time.sleep(0.2)
    turns(one, lambda: Reading(directory).ids() == ["a", "b", "c"])
    time.sleep(0.2)
    one.turn()  # nothing to do for long enough
    write(logs, directory, "d")
    turns(two, lambda: Reading(directory).ids() == ["a", "b", "c", "d"])


def test_what_one_worker_has_the_other_leaves_and_takes_the_rest(
    root: Path, logs: Logs, workers: tuple[Worker, Worker], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("indexer.sharing.IDLE_SECONDS", 60.0)
    one, two = workers
    first, second = create_collection(root, "first", SCHEMA), create_collection(root, "second", SCHEMA)
    write(logs, first, "a")
    turns(one, lambda: Reading(first).ids() == ["a"])
    write(logs, first, "b")
    write(logs, second, "c")
    turns(two, lambda: Reading(second).ids() == ["c"])
    assert Reading(first).ids() == ["a"]


def test_a_worker_with_several_lets_go_of_one_though_there_is_work(
    root: Path, logs: Logs, workers: tuple[Worker, Worker], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("indexer.sharing.TURN_SECONDS", 0.0)
    monkeypatch.setattr("indexer.sharing.IDLE_SECONDS", 60.0)
    monkeypatch.setattr("indexer.worker.SHARED_PAUSE", 60.0)
    one, two = workers
    first, second = create_collection(root, "first", SCHEMA), create_collection(root, "second", SCHEMA)
    for directory in (first, second):
        write(logs, directory, "a")
    turns(one, lambda: Reading(second).ids() == ["a"])
    for directory in (first, second):
        write(logs, directory, "b")
    turns(two, lambda: Reading(second).ids() == ["a", "b"])


def test_a_collection_made_anew_is_another(root: Path, logs: Logs, workers: tuple[Worker, Worker]):
    one, two = workers
    write(logs, create_collection(root, "c", SCHEMA), "old")
    turns(one, lambda: Reading(root / "collections" / "c").ids() == ["old"])
    drop_collection(root, "c")
    directory = create_collection(root, "c", SCHEMA)
    write(logs, directory, "new")
    turns(two, lambda: Reading(directory).ids() == ["new"])


def test_workers_go_on_from_the_manifest_when_redis_is_back(
    root: Path, logs: Logs, workers: tuple[Worker, Worker], redis: RedisServer
):
    one, _ = workers
    directory = create_collection(root, "c", SCHEMA)
    write(logs, directory, "a")
    turns(one, lambda: Reading(directory).ids() == ["a"])
    write(logs, directory, "b")
    redis.kill()
    with pytest.raises(LogUnavailable):
        write(logs, directory, "lost")
    assert not one.turn()
    redis.start()
    turns(one, lambda: Reading(directory).ids() == ["a", "b"])
