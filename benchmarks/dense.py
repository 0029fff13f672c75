"""Exact scan of bfloat16 vectors for the top k, against torch's matrix-vector product on one thread.

    python -m benchmarks.dense [--rows 100000] [--dim 384]

torch's figure is the product alone, without choosing the best.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from benchmarks.machine import describe
from indexer.kernels import warm
from indexer.segment.dense import Dense, write_dense


def median(run: Callable[[], object], rounds: int = 21) -> float:
    """Milliseconds."""
    times = []
    for _ in range(rounds):
        begin = time.perf_counter()
        run()
        times.append((time.perf_counter() - begin) * 1e3)
    return float(np.median(times))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--dim", type=int, default=384)
    options = parser.parse_args()
    warm()
    torch.set_num_threads(1)
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((options.rows, options.dim), np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    query, some = vectors[0].copy(), rng.random(options.rows) < 0.01
    single, half = torch.from_numpy(vectors), torch.from_numpy(vectors).bfloat16()
    wanted = torch.from_numpy(query)
    print(describe("numba", "torch"))
    with tempfile.TemporaryDirectory() as temporary:
        write_dense(Path(temporary) / "dense", vectors)
        dense = Dense(Path(temporary) / "dense")
        runs: dict[str, Callable[[], object]] = {
            "winnow, top 10": lambda: dense.search(query, 10),
            "winnow, top 1000": lambda: dense.search(query, 1000),
            "winnow, top 10 of 1 % allowed": lambda: dense.search(query, 10, some),
            "torch float32": lambda: single @ wanted,
            "torch bfloat16": lambda: half @ wanted.bfloat16(),
        }
        for name, run in runs.items():
            print(f"  {name:<30} {median(run):7.2f} ms")
        print(f"  a whole scan reads {dense.vectors.nbytes / median(runs['winnow, top 10']) / 1e6:.1f} GB/s")


if __name__ == "__main__":
    main()
