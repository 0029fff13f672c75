"""Embedding and reranking over HTTP, beside Infinity and beside the nets alone.

    python -m benchmarks.endpoints --data DIR --infinity VENV/bin/infinity_emb [--dtype float32] [--rounds 3]

Infinity (michaelfeil/infinity) lives in an environment of its own; torch goes first, so that it is the same:

    python3.11 -m venv VENV
    VENV/bin/pip install torch==2.13.0
    VENV/bin/pip install "infinity-emb[server,torch]==0.0.78"

That was transformers 4.57.6, sentence-transformers 3.4.1, click 8.1.8, typer 0.12.5 and numpy 1.26.4. It runs
with `--no-bettertransformer --no-compile`.

Both servers have the same folder of weights, number format and cores (`--cores`), which they share with the
client (`benchmarks.load`), and each is alone while it is measured: Infinity, Winnow, the nets alone, and
again, `--rounds` times. DIR is a BEIR folder: its queries are sent one a request by 1, 8 and 32 clients, its
documents, cut into passages of 100 words, in 16s by 8 clients. `raw` is `models.dense` encoding all of them
at once in a process of its own; sentence-transformers does the same. Then reranking of 100 such passages a
request by late interaction, beside `models.late` encoding the same passages and queries. Medians over the
rounds; a ratio is made within each round first. Before a server is measured its vectors are compared.

Winnow has no setting for the number format: it computes in bfloat16 where the CPU does natively. There
`--dtype float32` measures `benchmarks.float32_service`, the service told otherwise; on other CPUs `bfloat16`
is refused, since it would not be what the service does.
"""

import argparse
import os
import subprocess
import sys
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import httpx
import numpy as np
from numpy.typing import NDArray

from benchmarks.endpoint_loads import MODEL, TOGETHER, Load, Texts
from benchmarks.endpoint_servers import Server, cores, infinity, winnow
from benchmarks.endpoint_tables import Rate, Rates, Raw, embedding_table, raw_lines, reranking_table
from benchmarks.load import Closed, measure, percentiles
from benchmarks.machine import describe
from benchmarks.raw_encode import By
from benchmarks.raw_encode import measure as measure_raw
from benchmarks.server import Running, running
from models.precision import fast_dtype

SAME = 0.999
"""The least cosine between two servers' vectors of a text."""

LONGER = 3
"""Requests of many texts are measured so many times as long, since fewer of them end in a second."""

RAW: tuple[tuple[By, str], ...] = (
    ("winnow", "queries"),
    ("winnow", "passages"),
    ("sentence_transformers", "queries"),
    ("sentence_transformers", "passages"),
    ("late", "rerank"),
)


def main() -> None:
    """Measure and print."""
    options = _options()
    os.sched_setaffinity(0, options.cores)  # what is started inherits it
    texts = Texts(options.data)
    print(f"command: python -m benchmarks.endpoints {' '.join(sys.argv[1:])}")
    print(f"machine: {describe('torch', 'transformers', 'sentence-transformers', 'uvicorn')}")
    print(f"Infinity: {_versions(options.infinity)}")
    print(f"cores {sorted(options.cores)} for server and client, nets in {options.dtype}\n", flush=True)
    rates: Rates = defaultdict(list)
    raw: Raw = defaultdict(list)
    with TemporaryDirectory(prefix="winnow-") as data_dir:
        servers = [infinity(options.infinity, options.dtype), winnow(data_dir, _module(options.dtype))]
        for _ in range(options.rounds):
            _round(servers, texts, options, rates, raw)
    print(embedding_table(texts, rates, raw))
    print(raw_lines(raw))
    print(reranking_table(texts, rates, raw))
    print(f"load average at the end {os.getloadavg()[0]:.1f}")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="BEIR folder")
    parser.add_argument("--infinity", type=Path, required=True, help="the command infinity_emb")
    parser.add_argument("--dtype", choices=["bfloat16", "float32"], default="bfloat16")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--seconds",
        type=float,
        default=10,
        help="for each load (three times as long for many texts a request) and each net alone",
    )
    parser.add_argument(
        "--cores", type=cores, default=os.sched_getaffinity(0), help="0 or 0,1 (default: all)"
    )
    return parser.parse_args()


def _versions(infinity: Path) -> str:
    """What is installed beside that command."""
    names = ("infinity_emb", "torch", "transformers", "sentence-transformers", "uvicorn")
    shown = f"print(*(f'{{each}} {{version(each)}}' for each in {names}), sep=', ')"
    command = [str(infinity.with_name("python")), "-c", f"from importlib.metadata import version\n{shown}"]
    return str(subprocess.run(command, capture_output=True, text=True, check=True).stdout).strip()


def _module(dtype: str) -> str:
    """The program whose nets compute in this number format."""
    modules = {"float32": "benchmarks.float32_service", fast_dtype("cpu"): "service.cli"}
    if dtype not in modules:
        raise SystemExit(f"the service computes in {fast_dtype('cpu')} on this CPU, never in {dtype}")
    return modules[dtype]


def _round(
    servers: Sequence[Server], texts: Texts, options: argparse.Namespace, rates: Rates, raw: Raw
) -> None:
    vectors = []
    for server in servers:
        with running(server.command, server.probe) as here:
            vectors.append(_vectors(here.client, server, texts.queries[:TOGETHER]))
            _same(vectors)
            loads = [(load, server.embeddings) for load in texts.embedding()]
            if server.name == "Winnow":
                loads += [(load, "/v1/rerank") for load in texts.reranking()]
            for load, path in loads:
                rates[server.name, load.label].append(_rate(here, path, load, options.seconds))
    for by, what in RAW:
        raw[f"{by} {what}"].append(measure_raw(texts.raw(by, what, options.dtype, options.seconds)))


def _vectors(client: httpx.Client, server: Server, texts: Sequence[str]) -> NDArray[np.float32]:
    response = client.post(server.embeddings, json={"model": MODEL, "input": texts}).raise_for_status()
    vectors = np.array([each["embedding"] for each in response.json()["data"]], np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors


def _same(vectors: Sequence[NDArray[np.float32]]) -> None:
    least = float((vectors[0] * vectors[-1]).sum(1).min())
    if least < SAME:
        raise RuntimeError(f"the servers do not run the same net: a text's vectors have cosine {least:.4f}")


def _rate(server: Running, path: str, load: Load, seconds: float) -> Rate:
    """Warm up, then measure. Raises RuntimeError if any request failed, since the rest is no measure then."""
    content = {"Content-Type": "application/json"}
    server.client.post(path, content=load.bodies[0], headers=content).raise_for_status()
    seconds *= LONGER if load.texts > 1 else 1
    outcome = measure(Closed(server.port, path, load.bodies, load.clients, seconds))
    if outcome.statuses() != [200]:
        raise RuntimeError(f"{load.label}: answers with status {outcome.statuses()}, and 200 is wanted")
    p50, p95 = percentiles(outcome.milliseconds(), 50, 95)
    return Rate(len(outcome.answers) * load.texts / seconds, p50, p95)


if __name__ == "__main__":
    main()
