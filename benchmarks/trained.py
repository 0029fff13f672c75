"""What the shipped weights gain: nDCG@10 before and after, on judged sets that nothing was trained on.

    python -m benchmarks.trained ../shared/data OUT [--arm NAME ...] [--set NAME ...] [--queries N]

An arm is a pipeline over a collection of some schema. OUT keeps its values a query, so that arms can be
measured one after another, and an interrupted run goes on. Differences are tested by paired randomisation of
all queries of all sets. Sets with a star chose checkpoints, weights and depths; the others chose nothing.
"""

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.load import MINILM, SMOLLM2, SPLADE
from service.commands.common import prepare_environment, progress_bar
from service.commands.encoding_cache import cache_home
from service.commands.evaluate import Task
from service.commands.trial_run import TrialRun
from service.evaluation import per_query, randomisation_test
from service.stages import Bm25, Cross, Dense, Fuse, Group, InContext, Late, Pipeline, Sparse

CHOSEN_ON = ("cosqa", "vaswani", "time")
TESTS = ("scifact", "cranfield", "cacm", "medline", "noveleval", "medquad_liveqa")
FEW = 60
"""Queries a set where a language model reads."""
MEASURE = "nDCG@10"


@dataclass(frozen=True)
class Arm:
    """A pipeline, and the collection and service that it is run in; `few` limits queries for a slow one."""

    stages: Pipeline
    schema: Mapping[str, Any] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    few: bool = False


FIRST = Fuse(inputs=((Bm25(k=300),), (Dense(k=300),)), weights=(0.5, 0.5), unit="document")
IDF = {"sparse_query": "idf"}
TABLE = {"sparse_query": "encoder"}


def arms() -> dict[str, Arm]:
    """All there are, by name."""
    sparse: Pipeline = (Sparse(strategy="exact"), Group())
    return {
        "sparse both sides": Arm(sparse, {"sparse_encoder": SPLADE}),
        "sparse idf": Arm(sparse, {"sparse_encoder": SPLADE, **IDF}),
        "sparse trained": Arm(sparse, {"sparse_encoder": "winnow:sparse"}),
        "sparse trained, table": Arm(sparse, {"sparse_encoder": "winnow:sparse", **TABLE}),
        "sparse trained, idf": Arm(sparse, {"sparse_encoder": "winnow:sparse", **IDF}),
        "first": Arm((FIRST, Group())),
        **{f"late {name}": _late(encoder, 1.0) for name, encoder in LATE.items()},
        **{f"first + late {name} {w}": _late(encoder, w) for name, encoder in LATE.items() for w in WEIGHTS},
        **{f"first + cross {w}": _cross(w) for w in (0.3, 1.0)},
        **{
            f"in context {name} {mode}": _in_context(net, mode)
            for name, net in READERS.items()
            for mode in MODES
        },
    }


LATE = {"untrained": MINILM, "trained": "winnow:late"}
READERS = {"untrained": SMOLLM2, "trained": "winnow:in_context"}
MODES = ("keys", "cached", "query_aware")
WEIGHTS = (0.2, 0.4, 0.6)


def _late(encoder: str, weight: float) -> Arm:
    return Arm((FIRST, Late(k=100, weight=weight, aggregate="max"), Group()), {"late_encoder": encoder})


def _cross(weight: float) -> Arm:
    stages: Pipeline = (FIRST, Cross(k=50, weight=weight), Group())
    return Arm(stages, {}, {"cross_encoder": "winnow:cross"}, few=True)


def _in_context(model: str, mode: Any) -> Arm:
    stages: Pipeline = (Bm25(k=20), InContext(mode=mode, k=20, weight=1.0), Group())
    return Arm(stages, {"in_context_model": model}, few=True)


def measure(folder: Path, out: Path, chosen: Mapping[str, Arm], queries: int | None) -> None:
    """Measure what OUT does not have yet, arms of one collection over one index."""
    todo = {name: arm for name, arm in chosen.items() if not _file(out, folder.name, name).is_file()}
    shared: dict[str, dict[str, Arm]] = {}
    for name, arm in todo.items():
        shared.setdefault(json.dumps([arm.schema, arm.settings, arm.few]), {})[name] = arm
    for each in shared.values():
        first = next(iter(each.values()))
        task = Task.read(folder, FEW if first.few and queries is None else queries, 0)
        with TemporaryDirectory(prefix="winnow-") as root, progress_bar() as progress:
            stages = {name: arm.stages for name, arm in each.items()}
            run = TrialRun(Path(root), cache_home(), stages, None, progress, **first.settings)
            run.index(folder, first.schema)
            for name, answers in run.answers(task.queries).items():
                values = per_query(task.qrels, answers)[MEASURE]
                found = dict(zip(task.qrels, values.tolist(), strict=True))
                took = float(np.median([answer.took_ms for answer in answers.values()]))
                _file(out, folder.name, name).write_text(json.dumps({"values": found, "ms": took}))


def show(out: Path, sets: Sequence[str], names: Sequence[str]) -> None:
    """Print means of all arms, and each one's difference from the first of those named."""
    tables = {name: {each: _read(out, each, name) for each in sets} for name in names}
    print(
        "| | " + " | ".join(f"{each}*" if each in CHOSEN_ON else each for each in sets) + " | mean | tests |"
    )
    print("|---" * (len(sets) + 3) + "|")
    for name, table in tables.items():
        means = [
            float(np.mean(list(values.values()))) if values else float("nan") for values in table.values()
        ]
        tests = [mean for mean, each in zip(means, sets, strict=True) if each in TESTS]
        cells = " | ".join(f"{mean:.3f}" for mean in [*means, np.mean(means), np.mean(tests)])
        print(f"| {name} | {cells} |")
    for name in names[1:]:
        before, after = _paired(tables[names[0]], tables[name])
        if len(before):
            gain, p = float((after - before).mean()), randomisation_test(before, after)
            print(f"{name} - {names[0]}: {gain:+.4f} over {len(before)} test queries, p {p:.4f}")


def _paired(
    before: Mapping[str, Mapping[str, float]], after: Mapping[str, Mapping[str, float]]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    pairs = [
        (before[each][query], after[each][query])
        for each in before
        if each in TESTS
        for query in before[each]
        if query in after[each]
    ]
    array = np.array(pairs, np.float64).reshape(-1, 2)
    return array[:, 0], array[:, 1]


def _file(out: Path, dataset: str, arm: str) -> Path:
    return out / f"{dataset}-{arm.replace(' ', '_').replace(',', '')}.json"


def _read(out: Path, dataset: str, arm: str) -> dict[str, float]:
    file = _file(out, dataset, arm)
    found: dict[str, float] = json.loads(file.read_text())["values"] if file.is_file() else {}
    return found


def main() -> None:
    """Measure and show."""
    known = arms()
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--arm", nargs="*", default=list(known), metavar="NAME")
    parser.add_argument("--set", nargs="*", default=[*TESTS, *CHOSEN_ON])
    parser.add_argument("--queries", type=int)
    parser.add_argument("--show", action="store_true", help="only show what was measured")
    given = parser.parse_args()
    if unknown := sorted(set(given.arm) - set(known)):
        parser.error(f"there is no arm {', '.join(unknown)}; there are {', '.join(known)}")
    prepare_environment(cache_home(), ())
    given.out.mkdir(parents=True, exist_ok=True)
    if not given.show:
        for each in given.set:
            measure(given.data / each, given.out, {name: known[name] for name in given.arm}, given.queries)
    show(given.out, given.set, given.arm)


if __name__ == "__main__":
    main()
