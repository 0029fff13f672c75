"""Two services and two workers over one Redis and one directory, while workers are killed one by one.

Documents are written through both services and searched all the while. At the end each is there once.
"""

import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest

from tests.nets import tiny_encoder
from tests.redis_server import RedisServer

PATIENCE = 180.0
BATCH = 100
PAGE = 1000
MOST = 10_000  # documents of a collection


@dataclass(frozen=True)
class Load:
    """How much: a worker is killed every so many seconds while documents are written and indexed.

    At most so many are: one that always died before it had started would never finish.
    """

    collections: int
    documents: int
    killed_every: float
    kills: int

    @property
    def names(self) -> list[str]:
        return [f"c{number}" for number in range(self.collections)]


QUICK = Load(collections=2, documents=600, killed_every=2.0, kills=3)
LONG = Load(collections=4, documents=20_000, killed_every=5.0, kills=100)


@dataclass
class Cluster:
    """Processes that share a directory and a Redis."""

    root: Path
    environment: dict[str, str]
    urls: list[str] = field(default_factory=list)
    workers: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def serve(self) -> subprocess.Popen[bytes]:
        """Start one more service."""
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        self.urls.append(f"http://127.0.0.1:{port}")
        return self._start("serve", "--no-worker", "--port", str(port))

    def work(self) -> subprocess.Popen[bytes]:
        """Start one more worker."""
        return self._start("worker")

    def kill_one(self, number: int) -> None:
        """Kill a worker, and start another in its place."""
        place = number % len(self.workers)
        os.kill(self.workers[place].pid, signal.SIGKILL)
        self.workers[place].wait()
        self.workers[place] = self.work()

    def _start(self, *words: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "service.cli", *words, "--data-dir", str(self.root)]
        with Path(f"{self.root}.log").open("ab") as log:
            return subprocess.Popen(command, env=self.environment, stdout=log, stderr=log)


@contextmanager
def cluster(root: Path, redis: RedisServer) -> Iterator[Cluster]:
    given = {"WINNOW_ENCODER": str(tiny_encoder(root / "net")), "WINNOW_REDIS_URL": redis.url}
    running = Cluster(root / "data", os.environ | given)
    with ExitStack() as stack:
        for service in [running.serve() for _ in range(2)]:
            stack.callback(service.wait)
            stack.callback(service.kill)
        running.workers += [running.work() for _ in range(2)]
        stack.callback(lambda: [worker.wait() for worker in running.workers])
        stack.callback(lambda: [worker.kill() for worker in running.workers])
        for url in running.urls:
            until(lambda url=url: answers(url))
        yield running


def answers(url: str) -> bool:
    with suppress(httpx.TransportError):
        return httpx.get(f"{url}/livez").status_code == 200
    return False


def until(done) -> None:
    end = time.monotonic() + PATIENCE
    while not done():
        assert time.monotonic() < end, "it took too long"
        time.sleep(0.1)


def write(clients: list[httpx.Client], load: Load) -> None:
    """Write all documents in batches, through one service and the other, to the collections by turns."""
    for begin in range(0, load.documents, BATCH):
        name = load.names[begin // BATCH % load.collections]
        documents = [{"id": f"d{at}", "text": f"sea word{at}"} for at in range(begin, begin + BATCH)]
        answer = clients[begin // BATCH // load.collections % 2].post(f"/{name}/documents", json=documents)
        assert answer.status_code == 202, answer.text


def behind(client: httpx.Client, load: Load) -> bool:
    """Whether anything waits to be indexed."""
    return any(client.get(f"/{name}").json()["queued"] for name in load.names)


def expected(load: Load) -> dict[str, set[str]]:
    ids: dict[str, set[str]] = {name: set() for name in load.names}
    for at in range(load.documents):
        ids[load.names[at // BATCH % load.collections]].add(f"d{at}")
    return ids


def found(client: httpx.Client, name: str) -> list[str]:
    """Every document, by the word that all have, page after page of one generation."""
    ids: list[str] = []
    body = {"query": "sea", "pipeline": [{"stage": "bm25", "k": MOST}], "top_k": PAGE}
    generation = client.get(f"/{name}").json()["generation"]
    while True:
        page = client.post(f"/{name}/search", json={**body, "offset": len(ids), "generation": generation})
        hits = page.raise_for_status().json()["hits"]
        ids += [hit["id"] for hit in hits]
        if len(hits) < PAGE:
            return ids


def search_until(
    over: threading.Event, clients: list[httpx.Client], load: Load, statuses: list[int], failures: list[str]
) -> None:
    """Ask one service and the other; no answer may fail or name a document twice."""
    chance = random.Random(1)
    while not over.is_set():
        name, client = chance.choice(load.names), chance.choice(clients)
        answer = client.post(f"/{name}/search", json={"query": "sea", "pipeline": "bm25", "top_k": 50})
        statuses.append(answer.status_code)
        ids = [hit["id"] for hit in answer.json()["hits"]] if answer.status_code == 200 else []
        if answer.status_code != 200 or len(ids) != len(set(ids)):
            failures.append(answer.text)


@pytest.mark.parametrize("load", [QUICK, pytest.param(LONG, marks=pytest.mark.slow)], ids=["quick", "long"])
def test_workers_that_are_killed_lose_nothing_and_do_nothing_twice(
    load: Load, tmp_path: Path, redis: RedisServer
):
    with cluster(tmp_path, redis) as running, ExitStack() as stack:
        clients = [
            stack.enter_context(httpx.Client(base_url=f"{url}/v1/collections", timeout=30))
            for url in running.urls
        ]
        for name in load.names:
            assert clients[0].put(f"/{name}", json={"components": ["bm25", "dense"]}).status_code == 201
            until(lambda name=name: clients[1].get(f"/{name}").status_code == 200)
        over, statuses, failures = threading.Event(), [], []
        searching = threading.Thread(target=search_until, args=(over, clients, load, statuses, failures))
        searching.start()
        stack.callback(searching.join)
        stack.callback(over.set)

        writing = threading.Thread(target=write, args=(clients, load))
        writing.start()
        kills = 0
        while kills < load.kills and (writing.is_alive() or behind(clients[1], load)):
            time.sleep(load.killed_every)
            running.kill_one(kills)
            kills += 1
        writing.join()
        until(lambda: not behind(clients[1], load))

        assert kills > 0
        assert failures == []
        for name, ids in expected(load).items():
            assert clients[0].get(f"/{name}").json()["documents"] == len(ids)
            for client in clients:
                there = found(client, name)
                assert len(there) == len(set(there))
                assert set(there) == ids
        print(f"{load.documents} documents, {kills} workers killed, {len(statuses)} searches meanwhile")
