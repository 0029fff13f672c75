"""The service behind a real socket: bodies that lie or dawdle, clients that hang up, a real indexer."""

import gzip
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from indexer.document import Document
from indexer.queue.contract import upsert
from indexer.worker import drain
from service.state import State
from tests.nets import CountingNet, loading, tiny_encoder, tiny_sparse_encoder, word_overlap
from tests.serving import serving

SEARCH = "/v1/collections/c/search"


@contextmanager
def connected(url: str) -> Iterator[socket.socket]:
    """A connection on which any bytes can be sent."""
    address = urlsplit(url)
    with closing(socket.create_connection((address.hostname, address.port), timeout=20)) as connection:
        yield connection


def request(path: str, *headers: str) -> bytes:
    lines = [f"POST {path} HTTP/1.1", "Host: winnow", "Content-Type: application/json", *headers, "", ""]
    return "\r\n".join(lines).encode()


def answer(connection: socket.socket) -> tuple[int, bytes]:
    """Status and everything that is sent until the connection ends, or for what Content-Length says."""
    received = b""
    while b"\r\n\r\n" not in received:
        received += connection.recv(65536)
    head, _, body = received.partition(b"\r\n\r\n")
    length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
    while len(body) < length:
        body += connection.recv(65536)
    return int(head.split(b" ")[1]), body


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    small = {"limits": {"body_bytes": 100_000}, "body_seconds": 1.0}
    with serving(tmp_path_factory.mktemp("sockets"), **small) as (url, _):
        httpx.put(f"{url}/v1/collections/c").raise_for_status()
        yield url


def test_a_body_announced_too_large_is_refused_before_it_is_sent(url: str):
    with connected(url) as connection:
        connection.sendall(request(SEARCH, "Content-Length: 100000000", "Expect: 100-continue"))
        status, body = answer(connection)
    assert status == 413
    assert b"body_bytes" in body


def test_an_endless_body_is_refused_while_it_streams(url: str):
    sent = 0
    with connected(url) as connection:
        connection.sendall(request(SEARCH, "Transfer-Encoding: chunked"))
        connection.setblocking(False)
        until = time.monotonic() + 10
        while time.monotonic() < until:
            try:
                sent += connection.send(b"2710\r\n" + b" " * 10_000 + b"\r\n")
            except BlockingIOError:
                time.sleep(0.01)
            except (BrokenPipeError, ConnectionResetError):
                break
            else:
                time.sleep(0.001)
            try:
                if connection.recv(65536, socket.MSG_PEEK):
                    break
            except BlockingIOError:
                continue
        connection.settimeout(10)
        status, _ = answer(connection)
    assert status == 413


def test_a_large_file_gets_its_answer_although_it_was_still_being_sent(url: str):
    response = httpx.post(
        f"{url}{SEARCH}", content=b" " * 5_000_000, headers={"Content-Type": "application/json"}
    )
    assert response.status_code == 413


class Memory(threading.Thread):
    """The most memory that this process has while it runs, in MiB above what it had before."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.before = self.most = self._resident()
        self.over = threading.Event()

    def run(self) -> None:
        while not self.over.wait(0.005):
            self.most = max(self.most, self._resident())

    def __enter__(self) -> "Memory":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.over.set()
        self.join()

    @property
    def growth(self) -> float:
        return (self.most - self.before) / 2**20

    def _resident(self) -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")


def test_a_hundred_megabytes_and_a_bomb_take_no_memory(url: str):
    block = b" " * 10_000

    def endless() -> Iterator[bytes]:
        for _ in range(10_000):
            yield block

    bomb = gzip.compress(b" " * 100_000_000)
    until(lambda: httpx.get(f"{url}/readyz", timeout=60).status_code == 200, 60)
    announced = {"Content-Type": "application/json", "Content-Length": "100000000"}
    with Memory() as memory:
        for headers in (announced, {"Content-Type": "application/json"}):
            with suppress(httpx.TransportError):  # it may hang up on who does not listen
                assert (
                    httpx.post(f"{url}{SEARCH}", content=endless(), headers=headers, timeout=60).status_code
                    == 413
                )
        packed = {"Content-Type": "application/json", "Content-Encoding": "gzip"}
        assert (
            httpx.post(f"{url}{SEARCH}", content=bomb[:90_000], headers=packed, timeout=60).status_code == 415
        )
    assert memory.growth < 40, "of 300 that were sent or packed"
    assert httpx.get(f"{url}/livez").status_code == 200


def test_a_body_that_dawdles_is_given_up_and_its_connection_closed(url: str):
    with connected(url) as connection:
        connection.sendall(request(SEARCH, "Content-Length: 200"))
        began = time.monotonic()
        connection.setblocking(False)
        while time.monotonic() - began < 10:
            try:
                connection.send(b" ")
                if connection.recv(1, socket.MSG_PEEK):
                    break
            except BlockingIOError:
                time.sleep(0.05)
        connection.settimeout(10)
        status, body = answer(connection)
        assert status == 408
        assert b"body_too_slow" in body
        assert connection.recv(1) == b"", "closed"
    assert time.monotonic() - began < 5


@pytest.mark.parametrize(
    "path", ["a%2Fb", "..%2F..%2Fx", "%252F", "%C3%BC", "a%0D%0Ab", "%00", "%FF", "x" * 5000]
)
def test_odd_paths_are_answered(url: str, path: str):
    assert httpx.get(f"{url}/v1/collections/c/documents/{path}").status_code == 404


def test_a_client_that_hangs_up_takes_its_question_off_the_queue(tmp_path: Path):
    net = CountingNet()
    with serving(tmp_path, load=loading(dense=net), batch_texts=1, threads=1) as (url, state):
        httpx.put(f"{url}/v1/collections/c").raise_for_status()
        index(state)
        httpx.post(f"{url}{SEARCH}", json={"query": "warm"}).raise_for_status()
        net.batches.clear()
        net.gate.clear()
        with connected(url) as first, connected(url) as second:
            for connection, query in ((first, "one"), (second, "two")):
                body = b'{"query": "%s", "pipeline": "dense"}' % query.encode()
                connection.sendall(request(SEARCH, f"Content-Length: {len(body)}") + body)
                until(lambda: len(net.batches) == 1)
            until(lambda: sum(batcher.queued_tokens for batcher in state.nets.batchers()) > 0)
            second.close()
            until(lambda: sum(batcher.queued_tokens for batcher in state.nets.batchers()) == 0)
            net.gate.set()
            assert answer(first)[0] == 200
        assert len(net.batches) == 1, "the question of the one who left was never encoded"


def index(state: State) -> None:
    """Put a document into collection c and index it."""
    collection = state.catalog.get("c")
    collection.log.append([upsert(Document(id="a", text="moon"))])
    drain(state.settings.data_dir, "c", word_overlap)
    until(lambda: collection.current.generation == 1)


def until(happened: Any, seconds: float = 20.0) -> None:
    end = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < end, "it never happened"
        time.sleep(0.005)


SEARCHES = """
import asyncio, sys
from pathlib import Path
from indexer.kernels import compiled_signatures
from tests.running import running

async def main():
    async with running(Path(sys.argv[1])) as service:
        while service.state.warmup.pending:
            await asyncio.sleep(0.01)
        ready = compiled_signatures()
        for name, weighed, precision in (("c", "encoder", "int8"), ("w", "idf", "residual4")):
            components = ["bm25", "dense", "sparse", "late"]
            await service.make(name, sparse_query=weighed, components=components, late_precision=precision)
            documents = [{"id": "a", "text": "moon sea", "metadata": {"n": 1}}, {"id": "b", "text": "sea"}]
            await service.put(documents, name)
            await service.put([{"id": "b", "text": "tide"}], name)
            full = [{"stage": "bm25", "query_syntax": "full"}]
            fed = [{"stage": "dense"}, {"stage": "feedback", "component": "sparse"}, {"stage": "group"}]
            for pipeline in ("bm25", "dense", "balanced", "precise", full, fed):
                for filter in (None, {"n": {"gt": 0}}, {"_id": "a"}):
                    ask = {"pipeline": pipeline, "filter": filter, "explain": True, "highlight": True}
                    assert (await service.ids("moon sea", name, **ask))[:1] == ["a"]
        print("ready", ready, "after", compiled_signatures())

asyncio.run(main())
"""


def test_after_readiness_a_search_compiles_nothing(tmp_path: Path):
    """In a process of its own, since other tests have compiled what they needed."""
    command = [sys.executable, "-c", SEARCHES, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    _, ready, _, after = done.stdout.split()
    assert 0 < int(ready) == int(after)


def test_documents_are_indexed_by_a_process_that_is_started_again_when_it_dies(tmp_path: Path):
    encoder, sparse = str(tiny_encoder(tmp_path / "net")), str(tiny_sparse_encoder(tmp_path / "sparse"))
    given = {"worker": "embedded", "encoder": encoder, "sparse_encoder": sparse, "load": None}
    with serving(tmp_path / "data", **given) as (url, state):
        schema = httpx.put(f"{url}/v1/collections/c", json={}).json()["schema"]
        assert (schema["encoder"], schema["sparse_encoder"]) == (encoder, sparse)
        httpx.put(f"{url}/v1/collections/words", json={"components": ["bm25"]}).raise_for_status()
        first = put(url, "c", {"id": "a", "text": "the moon"}, {"id": "b", "text": "the sea"})
        assert (first.status_code, first.json()["job"]["state"]) == (200, "done")
        assert ids(url, "c", "the sea", "balanced") == {"a", "b"}
        assert state.indexer is not None
        assert state.indexer.process is not None
        os.kill(state.indexer.process.pid, signal.SIGKILL)
        assert put(url, "words", {"id": "x", "text": "the sun"}).status_code == 200
        assert ids(url, "words", "sun", "bm25") == {"x"}
        process = state.indexer.process.pid
    with pytest.raises(ProcessLookupError):
        os.kill(process, 0)


def put(url: str, collection: str, *documents: dict[str, Any]) -> httpx.Response:
    path = f"{url}/v1/collections/{collection}/documents?wait=searchable&timeout_ms=60000"
    return httpx.post(path, json=documents, timeout=70)


def ids(url: str, collection: str, query: str, pipeline: str) -> set[str]:
    path = f"{url}/v1/collections/{collection}/search"
    answer = httpx.post(path, json={"query": query, "pipeline": pipeline, "timeout_ms": 30_000}, timeout=40)
    assert answer.json()["degraded"] == []
    return {hit["id"] for hit in answer.json()["hits"]}
