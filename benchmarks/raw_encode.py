"""How fast a net is with nothing before it: all texts at once, in a process of its own.

    python -m benchmarks.raw_encode < JOB

A job is JSON: `by` (`winnow`, its dense encoder; `late`, its encoder of late interaction;
`sentence_transformers`), `folder`, `dtype`, `kind` (`query` or `document`), `groups` of texts, and `seconds`.
A group is encoded at once, group after group until so many seconds have passed. Prints texts a second.

`measure(...)` starts the process.
"""

import json
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

By = Literal["winnow", "late", "sentence_transformers"]
DType = Literal["float32", "bfloat16"]


@dataclass(frozen=True)
class Job:
    """What to encode. `queries`, if there are any, are encoded as such, one with each group, uncounted."""

    by: By
    folder: str
    dtype: DType
    kind: Literal["query", "document"]
    groups: Sequence[Sequence[str]]
    seconds: float
    queries: Sequence[str] = ()


def measure(job: Job) -> float:
    """Texts a second, in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.raw_encode"]
    done = subprocess.run(
        command, input=json.dumps(asdict(job)), stdout=subprocess.PIPE, text=True, check=True
    )
    return float(done.stdout)


def texts_per_second(job: Job) -> float:
    """The same in this process."""
    encode = _encoder(job)
    encode(job.groups[0][:64], job.kind)
    began, texts, number = time.perf_counter(), 0, 0
    while not number or time.perf_counter() - began < job.seconds:
        group = job.groups[number % len(job.groups)]
        if job.queries:
            encode([job.queries[number % len(job.queries)]], "query")
        encode(group, job.kind)
        texts += len(group)
        number += 1
    return texts / (time.perf_counter() - began)


def _encoder(job: Job) -> Callable[[Sequence[str], Any], object]:
    if job.by == "winnow":
        from models.dense import DenseEncoder

        return DenseEncoder.load(job.folder, dtype=job.dtype).encode
    if job.by == "late":
        from models.late import LateEncoder

        return LateEncoder.load(job.folder, dtype=job.dtype).encode
    import torch
    from sentence_transformers import SentenceTransformer
    from transformers.utils import logging

    logging.disable_progress_bar()
    dtype = {"dtype": getattr(torch, job.dtype)}
    net = SentenceTransformer(job.folder, device="cpu", local_files_only=True, model_kwargs=dtype)
    return lambda texts, kind: net.encode(list(texts), normalize_embeddings=True)


def main() -> None:
    """Read a job, run it, print."""
    print(texts_per_second(Job(**json.load(sys.stdin))))


if __name__ == "__main__":
    main()
