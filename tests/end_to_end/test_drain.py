"""SIGTERM in the middle of a load, on a process of its own with the indexer beside it."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

CLIENTS = 6
PROGRAM = """
import sys
from pathlib import Path
from service.app import create_app
from service.commands.serve import listen, run_until_stopped
from service.server import make
from service.settings import Settings
from tests.nets import word_overlap

settings = Settings(data_dir=Path(sys.argv[1]), port=0, drain_seconds=float(sys.argv[2]), worker=sys.argv[3])
listening = listen(settings.host, settings.port)
print(listening.getsockname()[1], flush=True)
run_until_stopped(make(create_app(settings, load=word_overlap), log_level="warning"), listening)
print("stopped", flush=True)
"""


@contextmanager
def served(
    directory: Path, drain_seconds: float, worker: str, probe: str
) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A service in a process of its own, which says yes to the probe, and its address."""
    command = [sys.executable, "-c", PROGRAM, str(directory), str(drain_seconds), worker]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            url = f"http://127.0.0.1:{process.stdout.readline().strip()}"
            until = time.monotonic() + 120
            while not says_yes(f"{url}{probe}"):
                assert time.monotonic() < until, "the service did not start"
                time.sleep(0.1)
            yield process, url
        finally:
            process.kill()


def says_yes(url: str) -> bool:
    try:
        return httpx.get(url).status_code == 200
    except httpx.TransportError:
        return False


class Load:
    """Clients that write and read one request after another, half of them on connections that they keep."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.outcomes: Counter[str] = Counter()
        self.last_seen = False  # an answer that said it was the last of its connection
        self._threads = [threading.Thread(target=self._client, args=(n,)) for n in range(CLIENTS)]
        for thread in self._threads:
            thread.start()

    def join(self) -> Counter[str]:
        for thread in self._threads:
            thread.join(60)
        return self.outcomes

    def _client(self, number: int) -> None:
        limits = httpx.Limits(max_keepalive_connections=number % 2)
        with httpx.Client(base_url=self.url, limits=limits, timeout=30) as client:
            while (outcome := self._request(client, number)) != "the door is closed":
                self.outcomes[outcome] += 1

    def _request(self, client: httpx.Client, number: int) -> str:
        try:
            if number < CLIENTS // 2:
                document = {"id": f"{number}", "text": "The moon pulls the sea."}
                response = client.post("/v1/collections/c/documents", json=document)
            else:
                response = client.post("/v1/collections/c/search", json={"query": "moon", "pipeline": "bm25"})
        except httpx.ConnectError:
            return "the door is closed"
        except httpx.TransportError as error:
            return repr(error)
        self.last_seen |= response.headers.get("connection") == "close"
        return str(response.status_code)


def test_no_request_fails_when_the_service_is_told_to_stop(tmp_path: Path):
    with served(tmp_path, 4, "embedded", "/readyz") as (process, url):
        (indexer,) = children(process.pid)
        httpx.put(f"{url}/v1/collections/c", json={"components": ["bm25"]}).raise_for_status()
        load = Load(url)
        time.sleep(1)
        before = sum(load.outcomes.values())
        process.send_signal(signal.SIGTERM)
        while (answer := httpx.get(f"{url}/readyz")).status_code == 200:
            time.sleep(0.02)
        assert (answer.status_code, answer.json()["detail"][:9]) == (503, "draining:")
        assert process.wait(60) == 0
        assert process.stdout.read() == "stopped\n"
        with pytest.raises(ProcessLookupError):
            os.kill(indexer, 0)
        outcomes = load.join()
    assert set(outcomes) == {"200", "202"}, "nobody was turned away, nor lost an answer"
    assert sum(outcomes.values()) > before, "those who came meanwhile were served too"
    assert load.last_seen


def test_a_service_that_nobody_asks_is_gone_soon(tmp_path: Path):
    with served(tmp_path, 25, "external", "/livez") as (process, _):
        began = time.monotonic()
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
        assert time.monotonic() - began < 20, "the drain did not last as long as it may"


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
