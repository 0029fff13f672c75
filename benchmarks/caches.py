"""What a search costs whose answer, or whose question's encodings, were kept, over HTTP.

    python -m benchmarks.caches --data DIR [--redis URL] [--documents 3204] [--questions 60]

A service in a process of its own with default settings over a BEIR folder, its caches in memory or in that
Redis. Each question is asked four times, one after another: past the caches; for the first time, when it is
looked for, found by nets and kept; for the second page, which needs the same encodings; and again.
"""

import argparse
import os
import sys
import time
from collections import defaultdict
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx
import numpy as np

from benchmarks.machine import describe
from benchmarks.server import running
from indexer.sources import read_documents, read_queries
from service.commands.common import progress_bar, settings_from
from service.commands.local import ensure_collection, index_documents, loader_here

NAME = "cached"
WARMING = 10
ASKED: dict[str, tuple[dict[str, Any], dict[str, str]]] = {
    "past the caches": ({}, {"Cache-Control": "no-cache"}),
    "for the first time": ({}, {}),
    "the second page": ({"offset": 10}, {}),
    "again": ({}, {}),
}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--redis")
    parser.add_argument("--documents", type=int, default=3204)
    parser.add_argument("--questions", type=int, default=60)
    options = parser.parse_args()
    if options.redis is not None:
        os.environ["WINNOW_REDIS_URL"] = options.redis
    questions = list(read_queries(options.data).values())[: WARMING + options.questions]
    with TemporaryDirectory(prefix="winnow-") as root:
        _index(Path(root), options.data, options.documents)
        print(describe("torch", "uvicorn", "redis"))
        _ask(Path(root), questions)


def _index(root: Path, data: Path, number: int) -> None:
    settings, load = settings_from(data_dir=root), loader_here(root / "cache" / "models")
    ensure_collection(NAME, {}, settings)
    with progress_bar() as progress:
        index_documents(root, NAME, islice(read_documents(data), number), number, load, progress)


def _ask(root: Path, questions: Sequence[str]) -> None:
    """Ask every question in every way, and print percentiles of what HTTP and service took."""
    serve = [sys.executable, "-m", "service.cli", "serve", "--no-worker", "--data-dir", str(root)]
    times: dict[str, list[tuple[float, float]]] = defaultdict(list)
    with (
        running(serve, "/readyz") as server,
        httpx.Client(base_url=f"http://127.0.0.1:{server.port}", timeout=60) as client,
    ):
        for number, question in enumerate(questions):
            for name, (more, headers) in ASKED.items():
                began = time.perf_counter()
                response = client.post(
                    f"/v1/collections/{NAME}/search", json={"query": question, **more}, headers=headers
                )
                took = (time.perf_counter() - began) * 1000
                answer = response.raise_for_status().json()
                if number >= WARMING and answer["cached"] == (name == "again"):
                    times[name].append((took, answer["took_ms"]))
    for name, pairs in times.items():
        (http, inside), (http95, inside95) = np.percentile(np.array(pairs), [50, 95], axis=0).tolist()
        print(
            f"{name:20} HTTP p50 {http:6.2f} p95 {http95:6.2f} ms, inside {inside:6.2f} {inside95:6.2f} ms, "
            f"{len(pairs)} questions"
        )


if __name__ == "__main__":
    main()
