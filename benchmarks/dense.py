"""Exact scan for the top k: of bfloat16 and of 8-bit vectors, whole and in windows of a number.

    python -m benchmarks.dense [--rows 100000] [--dim 384]

Against torch's matrix-vector product, which does not choose the best. A window is a filter such as
`{"n": {"gte": 10, "lt": 20}}` over numbers in random order; its time includes finding the rows inside. All
are timed by turns, and ratios are medians of the ratios of a turn. Windows are also compared with looking at
every number, and must give the same rows.
"""

import argparse
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.machine import describe
from indexer.filters import parse
from indexer.kernels import warm
from indexer.segment.columns import Columns, write_columns
from indexer.segment.dense import Dense, write_dense

SHARES = (0.9, 0.5, 0.1, 0.01, 0.001)
K = 1000

Run = Callable[[], object]


def by_turns(runs: Mapping[str, Run], rounds: int = 41) -> dict[str, NDArray[np.float64]]:
    """Milliseconds of every round by name."""
    times = np.empty((rounds, len(runs)))
    for turn in range(rounds):
        for place, run in enumerate(runs.values()):
            begin = time.perf_counter()
            run()
            times[turn, place] = (time.perf_counter() - begin) * 1e3
    return dict(zip(runs, times.T, strict=True))


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
    query, numbers = vectors[0].copy(), rng.permutation(options.rows)
    print(describe("numba", "torch"))
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        write_dense(root / "half", vectors)
        write_dense(root / "byte", vectors, "int8")
        write_dense(root / "shared", vectors[::2], "bfloat16", np.arange(options.rows, dtype=np.uint32) // 2)
        segments = {name: Dense(root / name) for name in ("half", "byte", "shared")}
        write_columns(
            root / "columns",
            [{"n": n} for n in numbers.tolist()],
            np.arange(options.rows, dtype=np.uint32),
            {},
        )
        columns = Columns(root / "columns", lambda ids: np.empty(0, np.int64))
        _scans(segments, vectors, query)
        for name in ("half", "byte"):
            _windows(name, segments[name], columns, numbers, query)


def _scans(segments: Mapping[str, Dense], vectors: NDArray[np.float32], query: NDArray[np.float32]) -> None:
    single, half, wanted = torch.from_numpy(vectors), torch.from_numpy(vectors).bfloat16(), query
    some = np.random.default_rng(1).permutation(len(vectors))[:K]
    runs: dict[str, Run] = {
        "bfloat16, top 10": lambda: segments["half"].search(query, 10),
        "bfloat16, top 1000": lambda: segments["half"].search(query, K),
        "bfloat16, two rows a vector": lambda: segments["shared"].search(query, K),
        "bfloat16, 1000 rows looked up": lambda: segments["half"].scores(query, some),
        "int8, top 10": lambda: segments["byte"].search(query, 10),
        "int8, top 1000": lambda: segments["byte"].search(query, K),
        "int8, 1000 rows looked up": lambda: segments["byte"].scores(query, some),
        "torch float32": lambda: single @ torch.from_numpy(wanted),
        "torch bfloat16": lambda: half @ torch.from_numpy(wanted).bfloat16(),
    }
    for name, times in by_turns(runs).items():
        print(f"  {name:<30} {np.median(times):7.2f} ms")


def _windows(
    name: str, dense: Dense, columns: Columns, numbers: NDArray[np.int64], query: NDArray[np.float32]
) -> None:
    rows = len(numbers)
    runs: dict[str, Run] = {"no filter": lambda: dense.search(query, K)}
    for share in SHARES:
        low = rows // 4
        wanted = parse({"n": {"gte": low, "lt": low + int(share * rows)}})
        inside = np.flatnonzero((numbers >= low) & (numbers < low + int(share * rows)))
        scores = dense.scores(query, inside)
        best = inside[np.lexsort((inside, -scores))[:K]]
        assert np.array_equal(dense.search(query, K, wanted.mask(columns, rows))[0], best)
        runs[f"{100 * share:g} %"] = lambda wanted=wanted: dense.search(query, K, wanted.mask(columns, rows))
        runs[f"{100 * share:g} %, its mask alone"] = lambda wanted=wanted: wanted.mask(columns, rows)
    times = by_turns(runs)
    print(f"\n  windows, {name}, top {K}")
    for window, each in times.items():
        ratio = np.median(each / times["no filter"])
        print(f"  {window:<30} {np.median(each):7.3f} ms   {ratio:5.2f} of no filter")


if __name__ == "__main__":
    main()
