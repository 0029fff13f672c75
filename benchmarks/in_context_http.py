"""Reranking in context over HTTP: what it adds to a search, by keys that are stored and by passages kept.

    python -m benchmarks.in_context_http [--documents 600] [--candidates 500] [--questions 50]

A service in a process of its own, with its default settings and nets, over documents of a hundred tokens that
all have one word of every question. Questions are asked one after another: by words alone, and reranked by
the `keys` of as many candidates as there are, by turns; then 100 of them in mode `cached`, once all passages
have been read. Beside it, by turns too and in this process, the forward of the question alone. Milliseconds.
"""

import argparse
import random
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx
import numpy as np
from rich.progress import Progress

from benchmarks.machine import describe
from benchmarks.server import served
from indexer.document import Document
from models.in_context.net import InContextNet
from service.commands.common import settings_from
from service.commands.local import ensure_collection, index_documents, loader_here

NAME = "reranking"
WORDS = [
    "river",
    "bank",
    "water",
    "stone",
    "bridge",
    "flood",
    "spring",
    "winter",
    "market",
    "garden",
    "letter",
    "doctor",
    "engine",
    "window",
]
TOKENS = 90
READ = 100

Stages = list[dict[str, Any]]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--documents", type=int, default=600)
    parser.add_argument("--candidates", type=int, default=500)
    parser.add_argument("--questions", type=int, default=50)
    options = parser.parse_args()
    generator = random.Random(0)
    with TemporaryDirectory(prefix="winnow-") as folder:
        root = Path(folder)
        net = _index(root, options.documents, generator)
        questions = [_text(7, generator) for _ in range(options.questions)]
        print(describe("torch", "uvicorn"))
        _ask(root, net, questions, options.candidates)
        print(describe("torch", "uvicorn"))


def _index(root: Path, number: int, generator: random.Random) -> InContextNet:
    settings = settings_from(data_dir=root)
    load = loader_here(root / "cache" / "models")
    net = load("in_context", settings.in_context_model)
    assert isinstance(net, InContextNet)
    ensure_collection(NAME, {"components": ["bm25", "keys"]}, settings)
    documents = (Document(id=str(at), text=_text(TOKENS, generator)) for at in range(number))
    began = time.perf_counter()
    with Progress(disable=True) as progress:
        index_documents(root, NAME, documents, number, load, progress)
    print(f"{number} documents of {TOKENS} words indexed in {time.perf_counter() - began:.0f} s")
    return net


def _text(words: int, generator: random.Random) -> str:
    return " ".join([WORDS[0], *generator.choices(WORDS[1:], k=words - 1)])


def _ask(root: Path, net: InContextNet, questions: Sequence[str], candidates: int) -> None:
    bm25: Stages = [{"stage": "bm25", "k": candidates}]
    keys = [*bm25, {"stage": "in_context", "mode": "keys", "k": candidates}]
    cached = [*bm25, {"stage": "in_context", "mode": "cached", "k": READ}]
    serve = [sys.executable, "-m", "service.cli", "serve", "--no-worker", "--data-dir", str(root)]
    with served(serve, "/readyz") as client:

        def search(stages: Stages) -> Callable[[str], dict[str, Any]]:
            return lambda question: _search(client, question, stages)

        alone = {"question alone": lambda question: net.ask_alone([net.question(question, "keys")])}
        _report(questions, {"bm25": search(bm25), "bm25, keys": search(keys), **alone})
        for question in questions:  # read all that will be asked for
            _search(client, question, cached)
        _report(questions, {"bm25": search(bm25), "bm25, cached": search(cached)})


def _report(questions: Sequence[str], runs: Mapping[str, Callable[[str], Any]]) -> None:
    times: defaultdict[str, list[float]] = defaultdict(list)
    for question in [*questions[:5], *questions]:
        for name, run in runs.items():
            began = time.perf_counter()
            answer = run(question)
            times[name].append((time.perf_counter() - began) * 1000)
            for stage in answer["stages"] if isinstance(answer, dict) else []:
                times[f"{name}: {stage['stage']}"].append(stage["ms"])
                assert stage["status"] == "ran", stage
    print("\n| | p50 ms | p95 ms |\n|---|---|---|")
    for name, taken in times.items():
        p50, p95 = np.percentile(taken[5:], [50, 95])
        print(f"| {name} | {p50:.1f} | {p95:.1f} |")
    names = list(runs)
    added = np.array(times[names[1]][5:]) - np.array(times[names[0]][5:])
    print(f"{names[1]} adds {np.median(added):.1f} ms", end="")
    if "question alone" in times:
        print(
            f", {np.median(added) / np.median(times['question alone'][5:]):.2f} × the question alone", end=""
        )
    print()


def _search(client: httpx.Client, question: str, stages: Stages) -> dict[str, Any]:
    body = {"query": question, "pipeline": stages, "timeout_ms": 60_000}
    response = client.post(f"/v1/collections/{NAME}/search", json=body).raise_for_status()
    answer: dict[str, Any] = response.json()
    return answer


if __name__ == "__main__":
    main()
