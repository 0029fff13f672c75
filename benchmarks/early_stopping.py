"""How many look-ups early stopping saves a Fast-Forward stage on judged collections, and what time.

    python -m benchmarks.early_stopping BEIR_FOLDER… [--queries 300] [--depth 1000]

Every question is searched by bm25, so deep, and rescored. `blocks` is what the service does: a look at the
bound after 128 candidates or k, and then each time as many again as twice the last block; `each` looks at it
before every candidate, which is the most that an exact bound can save. `guess` does that with the largest
cosine seen so far as its bound; it may miss, and `missed` says how much of the true best it did. Times are of
the whole stage without the question's encoding, exhaustive and early stopping by turns.
"""

import asyncio
import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from rich.progress import Progress

from benchmarks.machine import describe
from benchmarks.options import of_folders
from service.commands.encoding_cache import cache_home
from service.commands.evaluate import Task
from service.commands.local import engine_here, open_snapshot
from service.commands.trial_run import COLLECTION, TrialRun
from service.engine import Engine
from service.interpolate import bound_of_products, interpolate
from service.snapshot import Snapshot
from service.stages.bm25 import Bm25
from service.stages.dense import question_vector
from service.stages.fast_forward import FIRST_BLOCK, FastForward
from service.stages.normalise import minmax
from service.types import Hits, Search

WEIGHTS = {"0.05": (0.05, False), "0.1": (0.1, False), "0.5 minmax": (0.5, True)}
"""Shares of bm25, of its own scores or of these on [0, 1]."""
DEPTHS = (10, 100)
ROUNDS = 5

Scores = NDArray[np.float32]


class Counts(NamedTuple):
    """Of one question: candidates, look-ups of three kinds, and the share of the best that the guess lost."""

    candidates: float
    blocks: float
    each: float
    guess: float
    missed: float


def main() -> None:
    """Measure and print."""
    parser = of_folders(__doc__)
    parser.add_argument("--depth", type=int, default=1000)
    options = parser.parse_args()
    print(describe("numba", "numpy"))
    for folder in options.folders:
        with TemporaryDirectory(prefix="winnow-") as root, Progress(disable=True) as progress:
            trial = TrialRun(Path(root), cache_home(), ["bm25", "dense"], None, progress)
            trial.index(folder, {})
            queries = Task.read(folder, options.queries, 0).queries
            snapshot = open_snapshot(trial.root, COLLECTION)
            asyncio.run(_measure(folder.name, trial, snapshot, queries, options.depth))


async def _measure(
    name: str, trial: TrialRun, snapshot: Snapshot, queries: Mapping[str, str], depth: int
) -> None:
    rows = sum(part.segment.rows for part in snapshot.parts)
    print(f"\n{name}: {len(queries)} questions, {rows} passages\n")
    print("| weight | k | candidates | blocks | each | guess | missed | exhaustive ms | early ms |")
    print("|---|---|---|---|---|---|---|---|---|")
    longest = max(part.dense.longest for part in snapshot.parts)
    async with engine_here(trial.settings, trial._load) as (engine, _):
        asked = [await _asked(engine, snapshot, text, depth) for text in queries.values()]
        for weight, (share, scaled) in WEIGHTS.items():
            for k in DEPTHS:
                counts = [_counts(*each, share, scaled, k, longest) for each in asked if len(each[1]) > k]
                mean = Counts(*np.mean(counts, axis=0))
                exhaustive, early = await _times(asked, share, scaled, k)
                print(
                    f"| {weight} | {k} | {mean.candidates:.0f} | {mean.blocks:.0f} | {mean.each:.0f} | "
                    f"{mean.guess:.0f} | {100 * mean.missed:.2f} % | {exhaustive:.3f} | {early:.3f} |"
                )


async def _asked(engine: Engine, snapshot: Snapshot, text: str, depth: int) -> tuple[Search, Hits]:
    """A search whose question is encoded, and what bm25 finds."""
    alive = tuple(part.alive for part in snapshot.parts)
    search = Search(text, snapshot, alive, math.inf, engine.nets, engine.workers)
    await question_vector(search)
    return search, await Bm25(k=depth)(search, Hits(np.empty(0, np.int64), np.empty(0, np.float32), {}))


def _counts(search: Search, hits: Hits, share: float, scaled: bool, k: int, longest: float) -> Counts:
    sparse = minmax(hits.scores) if scaled else hits.scores.astype(np.float64)
    question = search.ahead["dense"].result()
    parts, rows = search.snapshot.locate(hits.seqs)
    cosines = np.empty(len(hits), np.float32)
    for number in np.unique(parts).tolist():
        inside = parts == number
        cosines[inside] = search.snapshot.parts[number].dense.scores(question, rows[inside])
    bound = bound_of_products(question, longest)
    look_up: Callable[[slice], Scores] = cosines.__getitem__
    everything = interpolate(sparse, look_up, share, None, k, 1).scores
    blocks = interpolate(sparse, look_up, share, bound, k, max(k, FIRST_BLOCK)).scores
    each = interpolate(sparse, look_up, share, bound, k, 1, 1).scores
    guess = _guessed(everything, sparse, cosines, share, k)
    best = np.lexsort((hits.seqs, -everything))[:k]
    for exact in (blocks, each):
        assert np.array_equal(np.lexsort((hits.seqs[: len(exact)], -exact))[:k], best)
    return Counts(len(hits), len(blocks), len(each), guess, float((best >= guess).mean()))


def _guessed(scores: Scores, sparse: NDArray[np.float64], cosines: Scores, share: float, k: int) -> int:
    """How many are looked up until the k-th best is what the next would have with the best cosine so far."""
    largest = np.maximum.accumulate(cosines)
    for seen in range(k, len(scores)):
        if np.partition(scores[:seen], -k)[-k] >= share * sparse[seen] + (1 - share) * largest[seen - 1]:
            return seen
    return len(scores)


async def _times(asked: list[tuple[Search, Hits]], share: float, scaled: bool, k: int) -> tuple[float, float]:
    """Median milliseconds a question of the stage: exhaustive, and with early stopping."""
    stages = [
        FastForward(
            sparse_weight=share, normalisation="minmax" if scaled else "none", k=k, early_stopping=early
        )
        for early in (False, True)
    ]
    taken = np.empty((ROUNDS, len(asked), 2))
    for turn in range(ROUNDS):
        for place, (search, hits) in enumerate(asked):
            for kind, stage in enumerate(stages):
                begin = time.perf_counter()
                await stage(search, hits)
                taken[turn, place, kind] = (time.perf_counter() - begin) * 1e3
    exhaustive, early = np.median(taken, axis=(0, 1)).tolist()
    return exhaustive, early


if __name__ == "__main__":
    main()
