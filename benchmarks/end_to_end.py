"""What a user waits for: indexing beside the encoder alone, stages, HTTP, and what HTTP adds to the stages.

    make bench                                   the documentation of the Python installed here
    python -m benchmarks.end_to_end --data DIR   a BEIR folder, with its own queries

Everything that is compared is measured by turns in one run: a chunk of documents is encoded alone and then
indexed; a question goes to each pipeline and then, at the same sizes, to an empty FastAPI route. So a busy
machine slows both sides, and the ratios stand. Queries are asked one at a time.
"""

import argparse
import os
import platform
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx
import numpy as np
from rich.console import Console, Group
from rich.table import Table

from benchmarks.server import served
from indexer.build import Passages
from indexer.collection import CollectionSchema, collection_path, create_collection
from indexer.document import Document
from indexer.kernels import warm
from indexer.python_docs import python_documents
from indexer.queue.contract import upsert
from indexer.queue.logs import Logs
from indexer.sources import read_documents, read_queries
from indexer.worker import drain
from models.dense import DenseEncoder
from models.sparse import SparseEncoder
from service.commands.encoding_cache import cache_home
from service.evaluation import answer_of

COLLECTION = "bench"
CHUNK = 512
PIPELINES = ("bm25", "dense", "sparse", "hybrid", "fast", "balanced")
Times = dict[str, list[float]]  # what -> milliseconds


def main() -> None:
    """Run everything and print it."""
    arguments = _arguments()
    documents, queries = _data(arguments)
    console = Console(highlight=False)
    console.print(_conditions(arguments, documents, queries))
    with TemporaryDirectory(prefix="winnow-bench-") as directory:
        root = Path(directory)
        console.print(_indexing(root, documents))
        times = _searching(root, queries)
    console.print(_latencies(times))
    console.print(_overheads(times))
    console.print(f"load average at the end {os.getloadavg()[0]:.1f}")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, help="BEIR folder in place of the Python documentation")
    parser.add_argument("--documents", type=int, default=2048, help="at most so many documents")
    parser.add_argument("--queries", type=int, default=200, help="at most so many queries")
    return parser.parse_args()


def _data(arguments: argparse.Namespace) -> tuple[list[Document], list[str]]:
    if arguments.data is not None:
        documents = list(islice(read_documents(arguments.data), arguments.documents))
        return documents, list(read_queries(arguments.data).values())[: arguments.queries]
    documents = list(islice(python_documents(), arguments.documents))
    step = max(1, len(documents) // arguments.queries)
    return documents, [document.text.split("\n", 1)[0] for document in documents[::step]]


def _conditions(arguments: argparse.Namespace, documents: Sequence[Document], queries: Sequence[str]) -> str:
    words = sum(len(document.text.split()) for document in documents) / len(documents)
    return (
        f"command: {' '.join([Path(sys.executable).name, *sys.orig_argv[1:]])}\n"
        f"machine: {_processor()}, {os.cpu_count()} cores, load average {os.getloadavg()[0]:.1f}, "
        f"Python {platform.python_version()}\n"
        f"data: {arguments.data or 'Python documentation'}, {len(documents)} documents of {words:.0f} words, "
        f"{len(queries)} queries\n"
    )


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


class Timed:
    """An encoder that adds up the seconds it takes."""

    def __init__(self, encoder: DenseEncoder | SparseEncoder) -> None:
        self.encoder = encoder
        self.seconds = 0.0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.encoder, name)

    def encode(self, texts: Sequence[str], **more: Any) -> Any:
        began = time.perf_counter()
        vectors = self.encoder.encode(texts, **more)
        self.seconds += time.perf_counter() - began
        return vectors


def _indexing(root: Path, documents: Sequence[Document]) -> Group:
    """Encode and index chunk by chunk, by turns."""
    cache, schema = cache_home() / "models", CollectionSchema()
    timed = {"dense": Timed(DenseEncoder.load(cache=cache)), "sparse": Timed(SparseEncoder.load(cache=cache))}
    encoders = [each.encoder for each in timed.values()]
    create_collection(root, COLLECTION, schema)
    log = Logs().open(collection_path(root, COLLECTION))
    warm()
    for encoder in encoders:
        encoder.encode(["the first forwards are slow"] * 64)
    alone = indexing = passages = 0.0
    for begin in range(0, len(documents), CHUNK):
        chunk = documents[begin : begin + CHUNK]
        texts = Passages.of(chunk, schema, encoders).encoded_texts()
        passages += len(texts)
        alone += _seconds(lambda texts=texts: [encoder.encode(texts) for encoder in encoders])
        log.append([upsert(document) for document in chunk])
        indexing += _seconds(lambda: drain(root, COLLECTION, lambda role, name: timed[role]))
    log.close()
    table = Table("", "documents/s", "passages/s", title="indexing")
    for name, seconds in (("raw encode", alone), ("indexing", indexing)):
        table.add_row(name, f"{len(documents) / seconds:.1f}", f"{passages / seconds:.1f}")
    encoding = sum(each.seconds for each in timed.values())
    note = (
        f"{', '.join(f'{encoder.name} in {encoder.dtype}' for encoder in encoders)}\n"
        f"indexing / raw encode {alone / indexing:.2f}; of indexing's time the encoders had "
        f"{encoding / indexing:.3f}, which is that ratio without what else the machine did\n"
    )
    return Group(table, note)


def _seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def _searching(root: Path, queries: Sequence[str]) -> Times:
    """Ask every query of every pipeline over HTTP, with an empty request of the same sizes after each."""
    serve = [sys.executable, "-m", "service.cli", "serve", "--no-worker", "--data-dir", str(root)]
    empty = [
        sys.executable,
        "-m",
        "uvicorn",
        "benchmarks.empty:app",
        "--no-access-log",
        "--log-level",
        "warning",
    ]
    times: Times = defaultdict(list)
    with served(serve, "/readyz") as winnow, served(empty, "/openapi.json") as nothing:
        for number, query in enumerate([*queries[:20], *queries]):
            for pipeline in PIPELINES:
                measured = _one(winnow, nothing, pipeline, query)
                if number >= min(20, len(queries)):
                    for name, milliseconds in measured.items():
                        times[name].append(milliseconds)
    return times


def _one(winnow: httpx.Client, nothing: httpx.Client, pipeline: str, query: str) -> dict[str, float]:
    body = {"query": query, "pipeline": pipeline}
    began = time.perf_counter()
    response = winnow.post(f"/v1/collections/{COLLECTION}/search", json=body)
    http = (time.perf_counter() - began) * 1000
    began = time.perf_counter()
    nothing.post(f"/empty?size={len(response.content)}", json=body).raise_for_status()
    empty = (time.perf_counter() - began) * 1000
    answer = response.raise_for_status().json()
    stages = sum(stage["ms"] for stage in answer["stages"])
    named = {f"{pipeline}: {stage}": ms for stage, ms in answer_of(answer).stages.items()}
    return {
        **named,
        f"{pipeline}: HTTP": http,
        f"{pipeline}: overhead": http - stages,
        f"{pipeline}: empty": empty,
    }


def _latencies(times: Times) -> Table:
    table = Table("pipeline: stage", "p50 ms", "p95 ms", "p99 ms", title="latency, one client")
    for name, values in times.items():
        if not name.endswith((": overhead", ": empty")):
            table.add_row(name, *(f"{value:.2f}" for value in np.percentile(values, [50, 95, 99])))
    return table


def _overheads(times: Times) -> Table:
    table = Table(
        "pipeline",
        "HTTP - stages, p50 ms",
        "empty POST, p50 ms",
        "ratio",
        title="what HTTP adds to the stages",
    )
    for pipeline in PIPELINES:
        overhead, empty = (float(np.median(times[f"{pipeline}: {what}"])) for what in ("overhead", "empty"))
        table.add_row(pipeline, f"{overhead:.2f}", f"{empty:.2f}", f"{overhead / empty:.2f}")
    return table


if __name__ == "__main__":
    main()
