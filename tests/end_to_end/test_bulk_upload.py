"""kill -9 of the service during uploads: what it acknowledged is there whole, the rest whole or not at all.

Several clients upload NDJSON, a piece at a time so that bodies are under way at any moment, and note which
uploads were answered. The service is killed, started again on the same directory, and asked.
"""

import json
import random
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
import pytest

from indexer.collection import collection_path
from indexer.queue.logs import Logs

LINES = 200
PIECES = 10
CLIENTS = 4
PATIENCE = 120.0

SERVE = """
import sys
from pathlib import Path

import uvicorn

from service.app import create_app
from service.settings import Settings
from tests.nets import word_overlap

settings = Settings(data_dir=Path(sys.argv[1]), worker="external")
uvicorn.run(create_app(settings, load=word_overlap), port=int(sys.argv[2]), log_level="error")
"""


@contextmanager
def service(root: Path) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    process = subprocess.Popen([sys.executable, "-c", SERVE, str(root), str(port)], stderr=subprocess.DEVNULL)
    url = f"http://127.0.0.1:{port}"
    try:
        until = time.monotonic() + PATIENCE
        while not _answers(url):
            assert time.monotonic() < until, "the service did not answer"
            time.sleep(0.05)
        yield process, url
    finally:
        process.kill()
        process.wait()


def _answers(url: str) -> bool:
    with suppress(httpx.TransportError):
        return httpx.get(f"{url}/livez").status_code == 200
    return False


class Uploads:
    """Numbered uploads, and which of them were acknowledged."""

    def __init__(self) -> None:
        self.begun: list[int] = []
        self.acknowledged: set[int] = set()

    def go_on(self, url: str) -> None:
        """Upload one after another until the service is gone."""
        with suppress(httpx.TransportError), httpx.Client(base_url=url, timeout=PATIENCE) as client:
            while True:
                number = len(self.begun)
                self.begun.append(number)
                headers = {"Content-Type": "application/x-ndjson"}
                response = client.post("/v1/collections/c/documents", content=pieces(number), headers=headers)
                assert response.status_code == 202
                assert response.json()["accepted"] == LINES
                self.acknowledged.add(number)


def pieces(number: int) -> Iterator[bytes]:
    """The lines of an upload, bit by bit."""
    for begin in range(0, LINES, LINES // PIECES):
        time.sleep(0.002)
        names = [f"{number}-{line}" for line in range(begin, begin + LINES // PIECES)]
        yield b"".join(json.dumps({"id": name, "text": "moon " * 20}).encode() + b"\n" for name in names)


def logged(root: Path) -> Counter[int]:
    """How many lines of each upload the log holds."""
    log = Logs().open(collection_path(root, "c"))
    entries = log.read(0, 10**9, 10**12)
    log.close()
    return Counter(int(json.loads(entry.operation.payload)["id"].split("-")[0]) for entry in entries)


@pytest.mark.parametrize("rounds", [1, pytest.param(50, marks=pytest.mark.slow)])  # 50: some five minutes
def test_a_service_killed_during_uploads_has_what_it_acknowledged_whole(rounds: int, tmp_path: Path):
    uploads, chance = Uploads(), random.Random(rounds)
    for number in range(rounds):
        with service(tmp_path) as (process, url), ThreadPoolExecutor(CLIENTS) as clients:
            if number == 0:
                httpx.put(f"{url}/v1/collections/c", json={}).raise_for_status()
            sending = [clients.submit(uploads.go_on, url) for _ in range(CLIENTS)]
            enough = len(uploads.acknowledged) + chance.randrange(1, 20)
            while len(uploads.acknowledged) < enough:
                time.sleep(0.001)
            process.send_signal(signal.SIGKILL)
            for each in sending:
                each.result(PATIENCE)
        found = logged(tmp_path)
        assert set(found.values()) == {LINES}, "an upload is there whole or not at all"
        assert uploads.acknowledged <= found.keys() <= set(uploads.begun)
    with service(tmp_path) as (_, url):
        shown = httpx.get(f"{url}/v1/collections/c").json()
        assert shown["queued"] == sum(found.values())
        assert len(uploads.begun) > len(uploads.acknowledged), "some were under way"
    print(
        f"{rounds} rounds, {len(uploads.acknowledged)} acknowledged uploads of {LINES} documents, none lost"
    )
