"""What candidate pruning and early exit save of late interaction, and what they lose.

    python -m benchmarks.cutoffs BEIR_FOLDER… [--queries 300]

The 100 best documents of `fast` are rescored by late interaction alone, with every combination of the two
cut-offs, by turns. `scored` is how many of them the stage looked at, `ms` the median of its time with the
question encoded already, `lost` how many of the ten best of rescoring all are missing.
"""

import asyncio
import math
import time
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np
from rich.progress import Progress

from benchmarks.machine import describe
from benchmarks.options import of_folders
from service.commands.encoding_cache import cache_home
from service.commands.evaluate import Task
from service.commands.local import engine_here, open_snapshot
from service.commands.trial_run import COLLECTION, TrialRun
from service.engine import NAMED
from service.evaluation import Answer, per_query
from service.pipeline import run
from service.snapshot import Snapshot
from service.stages import Late
from service.stages.dense import foresee_tokens
from service.types import Hits, Search

CUTOFFS: dict[str, dict[str, Any]] = {
    "none": {},
    "alpha 0.015": {"alpha": 0.015},
    "alpha 0.05": {"alpha": 0.05},
    "alpha 0.1": {"alpha": 0.1},
    "alpha 0.3": {"alpha": 0.3},
    "patience 4": {"patience": 4},
    "patience 8": {"patience": 8},
    "patience 16": {"patience": 16},
    "alpha 0.3, patience 8": {"alpha": 0.3, "patience": 8},
}


class Rescored(NamedTuple):
    """Documents in their new order, how many of them were scored, and milliseconds."""

    ids: list[str]
    scored: int
    ms: float


def main() -> None:
    """Measure and print."""
    options = of_folders(__doc__).parse_args()
    print(describe("torch", "numpy"))
    for folder in options.folders:
        task = Task.read(folder, options.queries, 0)
        with TemporaryDirectory(prefix="winnow-") as root, Progress(disable=True) as progress:
            trial = TrialRun(Path(root), cache_home(), ["fast", "precise"], None, progress)
            trial.index(folder, {})
            answers = asyncio.run(_measured(trial, task))
        print(f"\n{folder.name}: {len(task.queries)} questions\n")
        print("| cut-off | scored | ms | lost | nDCG@10 |\n|---|---|---|---|---|")
        for name, given in answers.items():
            print(f"| {name} | {_row(task, given, answers['none'])} |")


async def _measured(trial: TrialRun, task: Task) -> dict[str, dict[str, Rescored]]:
    """Cut-off -> query id -> what came of it."""
    found: dict[str, dict[str, Rescored]] = {name: {} for name in CUTOFFS}
    stages = {name: Late(k=100, aggregate="max", **cutoffs) for name, cutoffs in CUTOFFS.items()}
    snapshot = open_snapshot(trial.root, COLLECTION)
    alive = tuple(part.alive for part in snapshot.parts)
    async with engine_here(trial.settings, trial._load) as (engine, _):
        for query, text in [*list(task.queries.items())[:5], *task.queries.items()]:
            search = Search(text, snapshot, alive, math.inf, engine.nets, engine.workers)
            await foresee_tokens(search)
            words = (await run(NAMED["fast"], search)).hits
            for name, stage in stages.items():
                own = search.within(None)
                began = time.perf_counter()
                hits = await stage(own, words)
                taken = (time.perf_counter() - began) * 1e3
                found[name][query] = Rescored(_ids(snapshot, hits), own.notes.counts.get("scored", 0), taken)
    return found


def _ids(snapshot: Snapshot, hits: Hits) -> list[str]:
    stores = [part.segment.store for part in snapshot.parts]
    parts, rows = snapshot.locate(hits.seqs)
    return [
        stores[part].id(int(stores[part].document_of_row[row]))
        for part, row in zip(parts.tolist(), rows.tolist(), strict=True)
    ]


def _row(task: Task, given: Mapping[str, Rescored], whole: Mapping[str, Rescored]) -> str:
    missing = [len(set(whole[query].ids[:10]) - set(each.ids[:10])) for query, each in given.items()]
    answers = {query: Answer(each.ids, each.ms) for query, each in given.items()}
    ndcg = per_query(task.qrels, answers)["nDCG@10"].mean()
    scored = np.mean([each.scored for each in given.values()])
    ms = np.median([each.ms for each in given.values()])
    return f"{scored:.1f} | {ms:.2f} | {np.mean(missing):.2f} | {ndcg:.4f}"


if __name__ == "__main__":
    main()
