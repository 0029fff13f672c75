"""Late interaction over HTTP: how long it takes to rescore 1,000 passages of 100 token vectors.

    python -m benchmarks.late_http [--documents 5000] [--candidates 1000] [--questions 200]

A service in a process of its own, with its default settings and encoders, over documents of 98 random words
of one token each, so that with the two special ones each has 100 vectors; all have one word of every
question. Questions of seven words are asked one after another, with rescoring and without by turns: HTTP,
bm25 and the ten hits that are shown are in both.
"""

import argparse
import random
import sys
import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx
import numpy as np
from rich.progress import Progress

from benchmarks.machine import describe
from benchmarks.server import served
from indexer.document import Document
from models.late import LateEncoder
from service.commands.common import settings_from
from service.commands.local import ensure_collection, index_documents, loader_here, open_snapshot

NAME = "rescoring"
COMMON = "river"
WORDS = 98


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--documents", type=int, default=5000)
    parser.add_argument("--candidates", type=int, default=1000)
    parser.add_argument("--questions", type=int, default=200)
    options = parser.parse_args()
    generator = random.Random(0)
    with TemporaryDirectory(prefix="winnow-") as root:
        vocabulary = _index(Path(root), options.documents, generator)
        questions = [_text(vocabulary, 6, generator) for _ in range(options.questions)]
        bm25 = {"stage": "bm25", "k": options.candidates}
        late = {"stage": "late", "k": options.candidates}
        print(describe("torch", "uvicorn"))
        _ask(Path(root), questions, {"bm25": [bm25], "bm25, late": [bm25, late]})


def _index(root: Path, number: int, generator: random.Random) -> Sequence[str]:
    """Index so many documents, and say which words they are made of."""
    settings = settings_from(data_dir=root)
    load = loader_here(root / "cache" / "models")
    encoder = load("late", settings.late_encoder)
    assert isinstance(encoder, LateEncoder)
    vocabulary = [word for text in encoder.sample_texts() for word in text.split()]
    texts = [_text(vocabulary, WORDS - 1, generator) for _ in range(number)]
    ensure_collection(NAME, {"components": ["bm25", "late"], "late_pooling": "none"}, settings)
    documents = (Document(id=str(at), text=text) for at, text in enumerate(texts))
    with Progress(disable=True) as progress:
        index_documents(root, NAME, documents, number, load, progress)
    parts = open_snapshot(root, NAME).parts
    vectors = sum(part.late.vectors for part in parts) / sum(part.segment.rows for part in parts)
    print(f"{number} documents of {vectors:.0f} vectors of {encoder.dim} dimensions each")
    return vocabulary


def _text(vocabulary: Sequence[str], words: int, generator: random.Random) -> str:
    return " ".join([COMMON, *generator.sample(vocabulary, words)])


def _ask(root: Path, questions: Sequence[str], pipelines: dict[str, list[dict[str, Any]]]) -> None:
    times: defaultdict[str, list[float]] = defaultdict(list)
    serve = [sys.executable, "-m", "service.cli", "serve", "--no-worker", "--data-dir", str(root)]
    with served(serve, "/readyz") as client:
        for question in [*questions[:10], *questions]:
            for name, stages in pipelines.items():
                began = time.perf_counter()
                answer = _search(client, question, stages)
                times[name].append((time.perf_counter() - began) * 1000)
                for stage in answer["stages"]:
                    times[f"{name}: {stage['stage']}"].append(stage["ms"])
    print(f"{answer['stages'][-1]['scored']} passages rescored for a question\n")
    print("| | p50 ms | p95 ms |\n|---|---|---|")
    for name, taken in times.items():
        p50, p95 = np.percentile(taken[10:], [50, 95])
        print(f"| {name} | {p50:.1f} | {p95:.1f} |")


def _search(client: httpx.Client, question: str, stages: list[dict[str, Any]]) -> dict[str, Any]:
    body = {"query": question, "pipeline": stages}
    response = client.post(f"/v1/collections/{NAME}/search", json=body).raise_for_status()
    answer: dict[str, Any] = response.json()
    return answer


if __name__ == "__main__":
    main()
