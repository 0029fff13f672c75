"""Sudden death of the whole service, seen by a client that speaks HTTP: what was acknowledged is there once.

In each round service or indexer, or both, are killed at a random moment while the client writes; the next
round starts the service again on the same directory. An operation without an answer may have happened or
not; one that was acknowledged has.
"""

import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
import pytest

from tests.nets import tiny_encoder, tiny_sparse_encoder

PATIENCE = 120.0  # a first start compiles kernels


class Client:
    """Knows which texts a document may have: one after an acknowledged write, more after a lost one."""

    def __init__(self, url: str, seed: int) -> None:
        self.http = httpx.Client(base_url=f"{url}/v1/collections", timeout=10)
        self.random = random.Random(seed)
        self.possible: dict[str, set[str | None]] = {}
        self.acknowledged = 0

    def write(self) -> None:
        """Upsert or delete a few documents, and note what may be true now."""
        names = [f"d{number}" for number in self.random.sample(range(60), 5)]
        if self.random.random() < 0.2:
            changes: dict[str, str | None] = dict.fromkeys(names)
            self._send("/c/documents:delete", {"ids": names}, changes)
        else:
            changes = {name: f"sea {name} v{self.random.randrange(10**9)}" for name in names}
            self._send(
                "/c/documents", [{"id": name, "text": text} for name, text in changes.items()], changes
            )

    def check(self) -> None:
        """Every document is what it may be, and is found exactly once by its own words if it is there."""
        assert self.possible
        for name, texts in self.possible.items():
            answer = self.http.get(f"/c/documents/{name}")
            text = answer.json()["text"] if answer.status_code == 200 else None
            assert text in texts, (name, text, texts)
            found = self._search(name)
            assert found == ([] if text is None else [name])
        there = [name for name in self.possible if self.http.get(f"/c/documents/{name}").status_code == 200]
        assert sorted(self._search("sea")) == sorted(there)
        assert sorted(self._search("sea", "sparse")) == sorted(there)

    def _send(self, path: str, body: object, changes: dict[str, str | None]) -> None:
        for name, text in changes.items():
            self.possible.setdefault(name, {None}).add(text)
        answer = self.http.post(path, json=body)
        assert answer.status_code == 202, answer.text
        self.acknowledged += 1
        for name, text in changes.items():
            self.possible[name] = {text}

    def _search(self, words: str, pipeline: str = "bm25") -> list[str]:
        answer = self.http.post("/c/search", json={"query": words, "pipeline": pipeline, "top_k": 100})
        return [hit["id"] for hit in answer.raise_for_status().json()["hits"]]


@contextmanager
def service(root: Path, encoders: dict[str, str], port: int) -> Iterator[subprocess.Popen[bytes]]:
    """A service with its embedded indexer, killed at the end if it still lives."""
    command = [sys.executable, "-m", "service.cli", "serve", "--data-dir", str(root), "--port", str(port)]
    environment = os.environ | encoders
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
    return port


def indexer_of(process: subprocess.Popen[bytes]) -> int:
    """The indexer's process, once it is there."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    until = time.monotonic() + PATIENCE
    while not children.read_text().split():
        assert time.monotonic() < until, "the service started no indexer"
        time.sleep(0.02)
    return int(children.read_text().split()[0])


def until_answered(url: str) -> None:
    until = time.monotonic() + PATIENCE
    while True:
        with suppress(httpx.TransportError):
            if httpx.get(url).status_code == 200:
                return
        assert time.monotonic() < until, "the service did not answer"
        time.sleep(0.05)


def until_applied(client: Client) -> None:
    until = time.monotonic() + PATIENCE
    while client.http.get("/c").json()["queued"]:
        assert time.monotonic() < until, "the indexer did not finish"
        time.sleep(0.1)


def a_round(client: Client, process: subprocess.Popen[bytes]) -> None:
    """Write until death comes, to the service, to its indexer, or to both."""
    victims = client.random.choice([["service"], ["indexer"], ["indexer", "service"]])
    pids = {"service": process.pid, "indexer": indexer_of(process)}
    until = time.monotonic() + client.random.uniform(0.1, 2.5)
    with suppress(httpx.TransportError):
        while time.monotonic() < until:
            client.write()
        for victim in victims:
            os.kill(pids[victim], signal.SIGKILL)
        for _ in range(10):
            client.write()


@pytest.mark.parametrize("rounds", [2, pytest.param(50, marks=pytest.mark.slow)])
def test_a_killed_service_keeps_what_it_acknowledged(rounds: int, tmp_path: Path):
    encoders = {
        "WINNOW_ENCODER": str(tiny_encoder(tmp_path / "net")),
        "WINNOW_SPARSE_ENCODER": str(tiny_sparse_encoder(tmp_path / "sparse")),
    }
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    client = Client(url, seed=rounds)
    for number in range(rounds):
        with service(tmp_path / "data", encoders, port) as process:
            until_answered(f"{url}/livez")
            if number == 0:
                client.http.put("/c", json={"components": ["bm25", "sparse"]}).raise_for_status()
            a_round(client, process)
    with service(tmp_path / "data", encoders, port):
        until_answered(f"{url}/readyz")
        until_applied(client)
        client.check()
    print(f"{rounds} rounds, {client.acknowledged} acknowledged writes, none lost")
