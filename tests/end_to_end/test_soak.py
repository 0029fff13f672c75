"""Writing and searching for a long time: every answer is right, and neither process grows.

One client replaces and deletes documents and waits until this can be searched, others search. Memory and open
files of service and indexer are watched; what counts is how they grow in the second half.
"""

import random
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest

from benchmarks.memory import memory, slope
from tests.end_to_end.test_service_crash import free_port, indexer_of, service, until_answered
from tests.nets import tiny_encoder, tiny_sparse_encoder

PIPELINES = ["bm25", "dense", "sparse", "hybrid", "balanced"]
PATIENCE = 60.0


class Writer:
    """Changes a few documents at a time and knows what must be found."""

    def __init__(self, url: str) -> None:
        self.http = httpx.Client(base_url=f"{url}/v1/collections/c", timeout=PATIENCE)
        self.random = random.Random(1)
        self.texts: dict[str, str] = {}

    def change(self) -> None:
        names = [f"d{number}" for number in self.random.sample(range(200), 10)]
        if self.random.random() < 0.2:
            self._send("/documents:delete", {"ids": names})
            self.texts = {name: text for name, text in self.texts.items() if name not in names}
        else:
            texts = {name: f"sea {name} v{self.random.randrange(10**9)}" for name in names}
            self._send("/documents", [{"id": name, "text": text} for name, text in texts.items()])
            self.texts |= texts

    def check(self) -> None:
        """A document is found by its words as it was written last."""
        if self.texts:
            name = self.random.choice(sorted(self.texts))
            body = {"query": name, "pipeline": "bm25", "fields": ["text"], "timeout_ms": 60_000}
            (hit,) = self.http.post("/search", json=body).raise_for_status().json()["hits"]
            assert (hit["id"], hit["text"]) == (name, self.texts[name])

    def _send(self, path: str, body: object) -> None:
        answer = self.http.post(path, json=body, params={"wait": "searchable", "timeout_ms": 60_000})
        assert answer.status_code == 200, answer.text


class Searcher(threading.Thread):
    """Searches until it is told to stop; keeps the first answer that is not as it should be."""

    def __init__(self, url: str, over: threading.Event) -> None:
        super().__init__()
        self.url, self.over, self.wrong, self.number = url, over, "", 0

    def run(self) -> None:
        with httpx.Client(base_url=self.url, timeout=PATIENCE) as http:
            while not self.over.is_set() and not self.wrong:
                pipeline = PIPELINES[self.number % len(PIPELINES)]
                body = {"query": "sea moon", "pipeline": pipeline, "timeout_ms": 60_000, "highlight": True}
                answer = http.post("/v1/collections/c/search", json=body)
                if answer.status_code != 200 or answer.json()["degraded"]:
                    self.wrong = answer.text
                self.number += 1


def files(pid: int) -> int:
    """How many files a process has open."""
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


@pytest.fixture
def started(tmp_path: Path) -> Iterator[tuple[str, dict[str, int]]]:
    """A service with its indexer, of tiny nets: the address, and the number of either process."""
    settings = {
        "WINNOW_ENCODER": str(tiny_encoder(tmp_path / "net")),
        "WINNOW_SPARSE_ENCODER": str(tiny_sparse_encoder(tmp_path / "sparse")),
        "WINNOW_KEEP_SECONDS": "2",
        "WINNOW_SCRUB_BYTES_PER_SECOND": str(2**20),
        "WINNOW_RESULT_CACHE_BYTES": str(2**20),  # full long before the half
    }
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    with service(tmp_path / "data", settings, port) as process:
        until_answered(f"{url}/readyz")
        httpx.put(f"{url}/v1/collections/c", json={}, timeout=PATIENCE).raise_for_status()
        yield url, {"service": process.pid, "indexer": indexer_of(process)}


@pytest.mark.parametrize(("seconds", "most"), [(8, 300.0), pytest.param(600, 20.0, marks=pytest.mark.slow)])
def test_writing_and_searching_for_long_leaks_nothing(
    seconds: float, most: float, started: tuple[str, dict[str, int]]
):
    """`most` MiB may either process grow in the second half: caches fill, and allocators keep a little."""
    url, pids = started
    writer, over = Writer(url), threading.Event()
    writer.change()
    searchers = [Searcher(url, over) for _ in range(2)]
    with ExitStack() as stack:
        sizes = {name: stack.enter_context(memory(pid)) for name, pid in pids.items()}
        for each in searchers:
            each.start()
        began, opened = time.monotonic(), dict.fromkeys(pids, 0)
        while (passed := time.monotonic() - began) < seconds:
            writer.change()
            writer.check()
            if passed < seconds / 2:
                opened = {name: max(opened[name], files(pid)) for name, pid in pids.items()}
        over.set()
        for each in searchers:
            each.join()
    assert [each.wrong for each in searchers] == ["", ""]
    for name, pid in pids.items():
        growth = slope(sizes[name]) * seconds / 2 / 60
        print(f"{name}: {sizes[name][0]:.0f} MiB, {max(sizes[name]):.0f} at most, {growth:+.1f} in the end")
        assert growth < most, name
        assert files(pid) < opened[name] + 200, name
