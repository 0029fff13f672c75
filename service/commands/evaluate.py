"""`winnow evaluate`: pipelines side by side on judged queries, in this process and on a temporary index.

Documents go through the same log, worker and segments as any others, and questions through the engine that
answers HTTP, one after another and pipelines by turns, so that all meet the same state of the machine.
Answers are a thousand documents deep, as MAP needs it; latencies are of such answers.
"""

import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from service.commands.common import (
    CommandError,
    Json,
    Language,
    Schema,
    prepare_environment,
    progress_bar,
    read_schema,
)

if TYPE_CHECKING:
    from service.evaluation import Qrels, Report

DEFAULT_PIPELINES = ("bm25", "dense", "sparse", "hybrid", "fast", "balanced", "precise")
MEASURE_NAMES = ("nDCG@10", "MRR@10", "Recall@100", "MAP")


@dataclass(frozen=True)
class Task:
    """What is asked and what is known of it: query id -> text, and the judgments of exactly these."""

    queries: Mapping[str, str]
    qrels: "Qrels"

    @classmethod
    def read(cls, folder: Path, number: int | None, seed: int) -> "Task":
        """Read the judged queries of a BEIR folder, or `number` of them chosen by `seed`."""
        from indexer.sources import read_qrels, read_queries

        queries, qrels = read_queries(folder), read_qrels(folder)
        judged = [query for query in queries if query in qrels]
        if not judged:
            raise CommandError(f"{folder}: no query has a judgment")
        if number is not None and number < len(judged):
            chosen = set(random.Random(seed).sample(judged, number))  # noqa: S311 - a sample, not a secret
            judged = [query for query in judged if query in chosen]
        return cls({query: queries[query] for query in judged}, {query: qrels[query] for query in judged})


def evaluate(
    dataset: Annotated[
        Path, typer.Argument(help="A BEIR folder: corpus.jsonl, queries.jsonl and qrels.tsv.")
    ],
    pipeline: Annotated[
        list[str] | None,
        typer.Option(
            help="A named pipeline; give it again for more. The others are tested against the first.",
            show_default=" ".join(DEFAULT_PIPELINES),
        ),
    ] = None,
    queries: Annotated[
        int | None, typer.Option(min=1, help="Use so many of the queries.", show_default="all")
    ] = None,
    seed: Annotated[int, typer.Option(help="Chooses queries, and flips signs in the test.")] = 0,
    timeout_ms: Annotated[
        int | None, typer.Option(min=1, help="Deadline of each search.", show_default="none")
    ] = None,
    language: Language = None,
    schema: Schema = "{}",
    as_json: Json = False,
) -> None:
    """Measure pipelines on judged queries: nDCG@10, MRR@10, Recall@100, MAP, latency per stage, and bytes.

    The first run over a collection encodes it; its vectors are kept in ~/.cache/winnow for the next. Token
    vectors, which `precise` needs, are not, for their size: each run makes them anew.
    """
    task = Task.read(dataset, queries, seed)
    given = read_schema(schema, language)
    names = pipeline or list(DEFAULT_PIPELINES)
    reports, sizes = _measure(dataset, task, names, given, timeout_ms, seed)
    name = dataset.resolve().name
    if as_json:
        plain = {each: _plain(report, sizes[each]) for each, report in reports.items()}
        typer.echo(json.dumps({"dataset": name, "pipelines": plain}))
    else:
        _show(name, len(task.queries), reports, sizes)


def _measure(
    dataset: Path,
    task: Task,
    names: Sequence[str],
    schema: dict[str, Any],
    timeout_ms: int | None,
    seed: int,
) -> "tuple[dict[str, Report], dict[str, float]]":
    from service.commands.encoding_cache import cache_home

    named = (
        schema.get(field, "") for field in ("encoder", "sparse_encoder", "late_encoder", "in_context_model")
    )
    prepare_environment(cache_home(), tuple(named))

    from service.commands.trial_run import TrialRun
    from service.evaluation import compare

    with TemporaryDirectory(prefix="winnow-") as root, progress_bar() as progress:
        run = TrialRun(Path(root), cache_home(), names, timeout_ms, progress)
        run.index(dataset, schema)
        return compare(task.qrels, run.answers(task.queries), seed=seed), run.bytes_per_document()


def _plain(report: "Report", size: float) -> dict[str, float | int]:
    latency = {"p50_ms": report.latency.p50_ms, "p95_ms": report.latency.p95_ms}
    numbers = {name: round(value, 4) for name, value in {**report.measures, **latency}.items()}
    return {**numbers, "bytes_per_document": round(size), "degraded": report.degraded}


def _show(dataset: str, queries: int, reports: "Mapping[str, Report]", sizes: Mapping[str, float]) -> None:
    console = Console(highlight=False)
    console.print(_measures_table(f"{dataset}, {queries} queries", reports, sizes))
    console.print(_stages_table(reports))
    if len(reports) > 1:
        console.print(_p_table(reports))


def _measures_table(title: str, reports: "Mapping[str, Report]", sizes: Mapping[str, float]) -> Table:
    table = _table("pipeline", *MEASURE_NAMES, "p50 ms", "p95 ms", "bytes/doc", "degraded", title=title)
    for name, report in reports.items():
        values = [f"{report.measures[measure]:.3f}" for measure in MEASURE_NAMES]
        latency = [f"{report.latency.p50_ms:.1f}", f"{report.latency.p95_ms:.1f}"]
        table.add_row(name, *values, *latency, f"{sizes[name]:,.0f}", str(report.degraded))
    return table


def _p_table(reports: "Mapping[str, Report]") -> Table:
    first, *others = reports
    title = f"p of the difference to {first} (paired randomisation, two-sided, uncorrected)"
    table = _table("pipeline", *MEASURE_NAMES, title=title)
    for name in others:
        p_values = reports[name].p_values or {}
        table.add_row(name, *(f"{p_values[measure]:.4f}" for measure in MEASURE_NAMES))
    return table


def _table(first: str, *numbers: str, title: str | None = None) -> Table:
    table = Table(first, title=title, title_justify="left", box=SIMPLE, padding=0)
    for number in numbers:
        table.add_column(number, justify="right", no_wrap=True)
    return table


def _stages_table(reports: "Mapping[str, Report]") -> Table:
    table = _table("stage", "p50 ms", "p95 ms")
    for name, report in reports.items():
        for stage, latency in report.stages.items():
            table.add_row(f"{name}: {stage}", f"{latency.p50_ms:.2f}", f"{latency.p95_ms:.2f}")
    return table
