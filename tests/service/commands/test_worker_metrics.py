"""What the indexer shows of its work, and where."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client import generate_latest

from indexer.collection import CollectionSchema, create_collection
from indexer.document import Document
from indexer.queue.contract import Operation, delete, upsert
from indexer.queue.logs import Logs
from indexer.segment.store import merge_store
from indexer.worker import Worker
from service.commands.common import CommandError
from service.commands.serve import listen
from service.commands.worker_metrics import IndexerMetrics, shown_at
from tests.nets import word_overlap

WORDS_ONLY = CollectionSchema(language="none", components=("bm25",))


class House:
    """A worker with one collection, and what it shows."""

    def __init__(self, root: Path) -> None:
        self.metrics = IndexerMetrics()
        self.worker = Worker(root, word_overlap, observer=self.metrics)
        self.directory = create_collection(root, "c", WORDS_ONLY)

    def write(self, *operations: Operation) -> None:
        log = Logs().open(self.directory)
        log.append(operations)
        log.close()
        while self.worker.turn():
            pass

    def until(self, name: str, value: float) -> None:
        """Work until it shows this."""
        end = time.monotonic() + 30
        while not self.shows(name, value):
            assert time.monotonic() < end, name
            self.worker.turn()

    def shows(self, name: str, value: float) -> bool:
        text = generate_latest(self.metrics.registry).decode()
        return f'winnow_indexer_{name}{{collection="c"}} {float(value)}\n' in text


@pytest.fixture
def house(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[House]:
    monkeypatch.setattr("indexer.feeder.GATHER_SECONDS", 0.0)
    house = House(tmp_path)
    yield house
    house.worker.close()


def put(name: str, text: str = "some words") -> Operation:
    return upsert(Document(id=name, text=text))


def fail(*_: Any) -> Any:
    raise ValueError("this one will not do")


def test_batches_are_counted_by_operations_documents_and_passages(house: House):
    house.write(put("a"), put("b"), delete("a"))
    house.write(put("c"))
    assert house.shows("operations_total", 4)
    assert house.shows("documents_total", 2), "a was deleted before it was indexed"
    assert house.shows("passages_total", 2)
    assert house.shows("batch_seconds_count", 2)


def test_what_cannot_be_applied_is_counted_as_often_as_it_is_tried(
    house: House, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("indexer.writer.build_segment", fail)
    house.write(put("a"))
    assert house.shows("failed_batches_total", 3)
    assert house.shows("dead_letters_total", 1)


def test_merges_are_counted_whether_they_come_to_something_or_not(
    house: House, monkeypatch: pytest.MonkeyPatch
):
    fails = iter([True])

    def fail_once(*given: Any) -> Any:
        return fail() if next(fails, False) else merge_store(*given)

    monkeypatch.setattr("indexer.feeder.MERGE_PAUSE", 0.0)
    monkeypatch.setattr("indexer.merge.merge_store", fail_once)
    for name in "abcdef":
        house.write(put(name))
    house.until("merge_seconds_count", 1.0)
    assert house.shows("failed_merges_total", 1)


def test_a_collection_that_cannot_be_worked_on_is_counted(house: House):
    (house.directory / "CURRENT").write_text("manifest-000009.json")
    house.write(put("a"))
    assert house.shows("hindrances_total", 1)


def test_it_is_shown_over_http(tmp_path: Path):
    listening = listen("127.0.0.1", 0)
    address = f"127.0.0.1:{listening.getsockname()[1]}"
    with pytest.raises(CommandError, match=r"cannot show metrics at 127.0.0.1:\d+ \(Address already"):
        shown_at(address)
    listening.close()
    shown_at(address).applied("c", 3, 2, 5, 0.1)
    text = httpx.get(f"http://{address}/metrics").text
    assert 'winnow_indexer_passages_total{collection="c"} 5.0' in text
    assert "process_resident_memory_bytes" in text
