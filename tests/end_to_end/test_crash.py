"""Sudden death: whatever was acknowledged is there afterwards exactly once, whatever was not finished is not.

A client writes known documents and notes what was acknowledged. At any moment the published generation must
be what the acknowledged operations up to its log position come to, neither more nor less.
"""

import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from indexer.collection import CollectionSchema, create_collection
from indexer.document import Document
from indexer.queue.contract import Operation, delete, delete_where, upsert
from indexer.queue.logs import Logs
from indexer.worker import drain
from tests.end_to_end import dying_worker
from tests.indexer.reading import Reading, quick_directory
from tests.nets import word_overlap

SCHEMA = CollectionSchema(language="none", passage_tokens=16, overlap_sentences=0, sparse_query="idf")


class Client:
    """Writes at random and remembers every acknowledged operation and its position."""

    def __init__(self, directory: Path, seed: int) -> None:
        self.directory = directory
        self.log = Logs().open(directory)
        self.random = random.Random(seed)
        self.acknowledged: list[Operation] = []

    def write(self, operations: int = 3) -> None:
        batch = [self.operation() for _ in range(operations)]
        _, last = self.log.append(batch)
        self.acknowledged += batch
        assert last == len(self.acknowledged)

    def operation(self) -> Operation:
        name, kind = f"d{self.random.randrange(40)}", self.random.random()
        if kind < 0.15:
            return delete(name)
        if kind < 0.2:
            return delete_where({"group": self.random.randrange(8)})
        text = f"word{self.random.randrange(10**6)} tide. " * self.random.choice([1, 1, 12])
        return upsert(Document(id=name, text=text, metadata={"group": self.random.randrange(8)}))

    def expected(self, position: int) -> dict[str, str]:
        """Texts by id once everything up to a position is applied."""
        documents: dict[str, Document] = {}
        for operation in self.acknowledged[:position]:
            if operation.kind == "upsert":
                document = Document.from_json(operation.payload)
                documents[document.id] = document
            elif operation.kind == "delete":
                documents.pop(operation.payload.decode(), None)
            else:
                group = int(operation.payload.split(b":")[1].strip(b"}"))
                documents = {n: d for n, d in documents.items() if d.metadata["group"] != group}
        return {name: document.text for name, document in documents.items()}

    def check_published(self) -> Reading:
        """Check that what is published now is whole, and true up to its position."""
        reading = Reading(self.directory)
        reading.check()
        assert len(reading.ids()) == len(set(reading.ids()))
        assert reading.texts() == self.expected(reading.manifest.position)
        return reading

    def check_all(self) -> None:
        """Check that every acknowledged operation is applied, in every index, and nothing lies about."""
        reading = self.check_published()
        assert reading.manifest.position == len(self.acknowledged)
        assert self.log.dead_letters() == []
        assert all(job.state == "done" for job in self.log.jobs())
        passages = sorted(name for name, _ in reading.bm25("tide"))
        assert set(passages) == reading.texts().keys()
        assert sorted(name for name, _ in reading.dense("tide")) == passages
        assert sorted(name for name, _ in reading.sparse("tide")) == passages
        assert reading.full_text("tide") == passages
        for name, text in reading.texts().items():
            assert {found for found, _ in reading.bm25(text.split()[0])} == {name}
        assert reading.files() == reading.named()


def start(root: Path, fatal: int) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "tests.end_to_end.dying_worker", str(root), str(fatal)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.DEVNULL)


def write_while(client: Client, going_on: Callable[[], bool]) -> None:
    """Write a little now and then, so that there are many small batches."""
    end = time.monotonic() + 60
    while going_on():
        assert time.monotonic() < end, "the worker neither died nor published within a minute"
        if len(client.acknowledged) - Reading(client.directory).manifest.position < 30:
            client.write()
        time.sleep(0.03)


def kill_rounds(root: Path, rounds: int, seed: int) -> Client:
    """Let workers die, in turn at a fail point and at a random moment after something was published."""
    client = Client(create_collection(root, "c", SCHEMA), seed)
    for number in range(rounds):
        generation = client.check_published().manifest.generation
        fatal = client.random.randrange(1, 120) if number % 2 == 0 else 0
        process = start(root, fatal)
        if fatal:
            write_while(client, lambda: process.poll() is None)  # noqa: B023 (called before it changes)
        else:
            write_while(client, lambda: Reading(client.directory).manifest.generation <= generation)  # noqa: B023
            time.sleep(client.random.uniform(0, 0.3))
            client.write(20)
            time.sleep(client.random.uniform(0, 0.3))
        process.kill()
        process.stdin.close()
        process.wait()
        client.check_published()
    return client


def finish(root: Path, client: Client) -> None:
    drain(root, "c", word_overlap)
    drain(root, "c", word_overlap)  # the first leaves superseded files, for readers
    client.check_all()


@pytest.mark.parametrize("rounds", [4, pytest.param(50, marks=pytest.mark.slow)])
def test_a_killed_worker_loses_nothing_and_shows_nothing_half_made(rounds: int):
    with quick_directory() as root:
        client = kill_rounds(root, rounds, seed=rounds)
        finish(root, client)
        print(f"{rounds} rounds, {len(client.acknowledged)} acknowledged operations, none lost")


class Death(BaseException):
    """Stands for SIGKILL where the process has to go on."""


@pytest.mark.parametrize("step", [7, pytest.param(1, marks=pytest.mark.slow)])
def test_every_fail_point(step: int, monkeypatch: pytest.MonkeyPatch):
    """Die before one durable call of a batch and a merge, before a later one, until all is done."""
    with quick_directory() as before:
        client = Client(create_collection(before, "c", SCHEMA), seed=1)
        for _ in range(5):  # so that the next generations bring about a merge
            client.write(4)
            drain(before, "c", word_overlap)
        client.write(6)
        client.log.close()
        fatal = step
        while dies(before, client, fatal, monkeypatch):
            fatal += step
    assert fatal > 50
    print(f"killed before one of {fatal // step} durable calls")


def test_there_are_fail_points_at_every_kind_of_file(monkeypatch: pytest.MonkeyPatch):
    synchronised, fsync = set(), os.fsync

    def note(descriptor: int) -> None:
        synchronised.add(Path(f"/proc/self/fd/{descriptor}").readlink())
        fsync(descriptor)

    with quick_directory() as root:
        client = Client(create_collection(root, "c", SCHEMA), seed=1)
        monkeypatch.setattr(os, "fsync", note)
        for _ in range(8):
            client.write(6)
            drain(root, "c", word_overlap)
        paths = {
            path.relative_to(client.directory)
            for path in synchronised
            if path.is_relative_to(client.directory)
        }
    names = {path.name for path in paths}
    assert names >= {"store.bin", "columns.bin", "lexical.bin", "documents.bin", "dense.bin", "sparse.bin"}
    assert {path.suffix for path in paths if path.parent.name.startswith("lexical-")} >= {
        ".term",
        ".idx",
        ".json",
    }
    assert any(path.parent.name == "tombstones" for path in paths)
    assert "CURRENT.tmp" in names
    assert any(name.startswith("manifest-") for name in names)


def dies(before: Path, client: Client, fatal: int, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Go on from a copy until the fatal call, if it comes to it, and then after it as a new process would."""
    reached = False

    def die(number: int) -> None:
        nonlocal reached
        if number == fatal:
            reached = True
            raise Death

    with quick_directory() as root:
        shutil.copytree(before, root, dirs_exist_ok=True)
        client.directory = root / "collections" / "c"
        client.log = Logs().open(client.directory)
        with monkeypatch.context() as patch, suppress(Death):
            for name in dying_worker.DURABLE:
                patch.setattr(f"os.{name}", getattr(os, name))  # so that it is put back at the end
            dying_worker.before_each(die)
            drain(root, "c", word_overlap)
        client.check_published()
        finish(root, client)
        client.log.close()
    return reached
