"""Rescoring by token vectors, end to end from the mapped file, against torch's product of matrices.

    python -m benchmarks.maxsim [--tokens 100] [--rounds 41]

First 100 passages for a question of 32 vectors on one thread: torch's product, maximum and sum of vectors
that are a tensor already, and ours with all it takes to collect them. Then 1,000 passages with one thread and
with two. Runs go by turns, so that the load of the machine is in all of them; ratios are those of medians.
"""

import argparse
import tempfile
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.machine import describe
from indexer.kernels import warm
from indexer.segment.codec import train_codebook
from indexer.segment.late import Late, LateQuestion, Tokens, question, write_late
from models.maxsim import int8_is_exact, products

Run = Callable[[], object]

QUESTION = 32


def medians(runs: Mapping[str, Run], rounds: int) -> dict[str, float]:
    """Milliseconds of each; one of every run a round."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    for number in range(rounds + 2):
        for name, run in runs.items():
            begin = time.perf_counter()
            run()
            if number >= 2:
                times[name].append((time.perf_counter() - begin) * 1e3)
    return {name: float(np.median(each)) for name, each in times.items()}


def units(rng: np.random.Generator, number: int, dim: int) -> NDArray[np.float32]:
    """Random directions, float32 [number, dim]."""
    vectors: NDArray[np.float32] = rng.standard_normal((number, dim), np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors


def stores(folder: Path, vectors: NDArray[np.float32], tokens: int) -> dict[str, Late]:
    """Passages of so many tokens, in either precision."""
    ids = np.arange(tokens, dtype=np.int32)
    passages = [Tokens(some, ids) for some in vectors.reshape(-1, tokens, vectors.shape[1])]
    codebook = train_codebook(vectors[:20_000])
    write_late(folder / "int8", passages, vectors.shape[1], "int8")
    write_late(folder / "residual4", passages, vectors.shape[1], "residual4", codebook)
    return {name: Late(folder / name) for name in ("int8", "residual4")}


def by_torch(vectors: NDArray[np.float32], asked: NDArray[np.float32], tokens: int) -> dict[str, Run]:
    """What torch needs if everything is there as tensors already."""

    def run(kind: torch.dtype) -> Run:
        own, theirs = torch.from_numpy(vectors).to(kind), torch.from_numpy(asked).to(kind)
        return lambda: (own @ theirs.T).view(-1, tokens, QUESTION).amax(1).sum(1)

    return {"torch float32": run(torch.float32), "torch bfloat16": run(torch.bfloat16)}


def halves(pool: ThreadPoolExecutor, late: Late, asked: LateQuestion, rows: NDArray[np.int64]) -> None:
    """The same passages in two threads."""
    list(pool.map(lambda some: late.scores(asked, some, products), np.array_split(rows, 2)))


def compare(dim: int, tokens: int, rounds: int) -> None:
    """Print both tables for vectors of this many dimensions."""
    rng = np.random.default_rng(0)
    vectors, asked = units(rng, 1000 * tokens, dim), units(rng, QUESTION, dim)
    few, many = rng.permutation(1000)[:100], rng.permutation(1000)
    collected = np.ascontiguousarray(vectors.reshape(1000, tokens, dim)[few].reshape(-1, dim))
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(2) as pool:
        late, put = stores(Path(folder), vectors, tokens), question(asked)
        small, large = by_torch(collected, asked, tokens), dict[str, Run]()
        for name, store in late.items():
            small[f"winnow {name}"] = partial(store.scores, put, few, products)
            large[f"winnow {name}, 1 thread"] = partial(store.scores, put, many, products)
            large[f"winnow {name}, 2 threads"] = partial(halves, pool, store, put, many)
        found = medians(small, rounds)
        print(f"100 passages of {tokens} x {dim}, one thread; share of torch float32")
        for name, ms in found.items():
            print(f"  {name:<27} {ms:8.3f} ms  {ms / found['torch float32']:5.2f}")
        print(f"1,000 passages of {tokens} x {dim}")
        for name, ms in medians(large, rounds).items():
            print(f"  {name:<27} {ms:8.2f} ms")
        for name, store in late.items():
            print(f"  {name}: {store.bytes / store.vectors:.0f} bytes a vector")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tokens", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=41)
    options = parser.parse_args()
    warm()
    torch.set_num_threads(1)
    print(describe("numba", "torch"))
    print("int8 products are exact" if int8_is_exact() else "int8 products are not exact: float32 is used")
    for dim in (128, 384):
        compare(dim, options.tokens, options.rounds)


if __name__ == "__main__":
    main()
