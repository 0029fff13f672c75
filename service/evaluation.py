"""Effectiveness beside latency: judged queries and the answers of several pipelines, side by side.

Measures come from ir_measures (trec_eval's definitions). A mean is over every judged query; one without an
answer counts 0, so a pipeline cannot look better by failing on hard questions. The order of an answer is
the ranking: scores are replaced by strictly decreasing ones, since trec_eval breaks ties by document id and
would otherwise rank differently from what the user saw.

Two pipelines are compared by the paired randomisation test: under the null hypothesis the sign of every
per-query difference is a coin flip. It assumes no distribution, which nDCG with its many zeros needs.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import ir_measures
import numpy as np
from ir_measures import AP, RR, R, ScoredDoc, nDCG
from numpy.typing import NDArray

from service.schema.search import SearchResponse
from service.types import Account

MEASURES = {"nDCG@10": nDCG @ 10, "MRR@10": RR @ 10, "Recall@100": R @ 100, "MAP": AP}
DEPTH = 1000  # how deep an answer has to be for MAP to mean what it says

Qrels = Mapping[str, Mapping[str, int]]  # query id -> document id -> grade


@dataclass(frozen=True)
class Answer:
    """What one pipeline gave for one query: document ids, best first, and what that cost."""

    ids: Sequence[str]
    took_ms: float
    stages: Mapping[str, float] = field(default_factory=dict)  # milliseconds per stage
    degraded: bool = False


def answer_of(response: SearchResponse) -> Answer:
    """What counts of a search's response. Nested stages are named after the one they are an input of."""
    return Answer(
        ids=[hit["id"] for hit in response["hits"]],
        took_ms=response["took_ms"],
        stages=dict(_stage_times(response["stages"], "")),
        degraded=bool(response["degraded"]),
    )


def _stage_times(accounts: Iterable[Account], prefix: str) -> Iterator[tuple[str, float]]:
    for account in accounts:
        name = prefix + account["stage"]
        yield name, account["ms"]
        for pipeline in account["inputs"]:
            yield from _stage_times(pipeline, f"{name}/")


@dataclass(frozen=True)
class Latency:
    """Percentiles in milliseconds."""

    p50_ms: float
    p95_ms: float

    @classmethod
    def of(cls, milliseconds: Sequence[float]) -> "Latency":
        """Linear interpolation between the closest ranks; zero for an empty sequence."""
        if not milliseconds:
            return cls(0.0, 0.0)
        p50, p95 = np.percentile(np.asarray(milliseconds, np.float64), [50, 95])
        return cls(float(p50), float(p95))


@dataclass(frozen=True)
class Report:
    """One pipeline over all judged queries. `p_values` is None for the one the others are tested against."""

    measures: Mapping[str, float]
    latency: Latency
    stages: Mapping[str, Latency]
    degraded: int
    p_values: Mapping[str, float] | None = None


def compare(qrels: Qrels, answers: Mapping[str, Mapping[str, Answer]], *, seed: int = 0) -> dict[str, Report]:
    """Reports by pipeline name, in the order given; the first is what the others are tested against.

    `answers` is pipeline name -> query id -> answer; every query of `qrels` counts, answered or not.
    """
    if not qrels:
        raise ValueError("No judged query: an evaluation needs at least one query with judgments.")
    scores = {name: per_query(qrels, given) for name, given in answers.items()}
    baseline = next(iter(answers), None)
    reports = {}
    for name, given in answers.items():
        p_values = None if name == baseline else _p_values(scores[str(baseline)], scores[name], seed)
        reports[name] = _report(scores[name], list(given.values()), p_values)
    return reports


def per_query(qrels: Qrels, answers: Mapping[str, Answer]) -> dict[str, NDArray[np.float64]]:
    """Measure name -> its value for each query, in the order of `qrels`."""
    row = {query: number for number, query in enumerate(qrels)}
    values = {name: np.zeros(len(row)) for name in MEASURES}
    name_of = {measure: name for name, measure in MEASURES.items()}
    judged = {query: dict(grades) for query, grades in qrels.items()}
    for metric in ir_measures.iter_calc(list(MEASURES.values()), judged, list(_run(answers))):
        values[name_of[metric.measure]][row[metric.query_id]] = metric.value
    return values


def randomisation_test(
    a: NDArray[np.float64], b: NDArray[np.float64], *, samples: int = 100_000, seed: int = 0
) -> float:
    """Two-sided p that paired values differ in mean by chance: the share of sign flips at least as extreme.

    Exact over all 2^n assignments for up to 20 pairs, else `samples` random ones, counted as
    (c + 1) / (samples + 1). Pairs without a difference do not matter to either form and are left out.
    """
    differences = np.asarray(b - a, np.float64)
    differences = differences[differences != 0.0]
    threshold = abs(differences.sum()) * (1 - 1e-12)  # sums of the same numbers in another order may differ
    if len(differences) <= 20:
        return float(np.mean(np.abs(_all_signed_sums(differences)) >= threshold))
    extreme = sum(
        int(np.count_nonzero(np.abs(sums) >= threshold))
        for sums in _random_signed_sums(differences, samples, np.random.default_rng(seed))
    )
    return (extreme + 1) / (samples + 1)


def _run(answers: Mapping[str, Answer]) -> Iterable[ScoredDoc]:
    """Strictly decreasing scores; a document that comes twice (ungrouped passages) counts once, first."""
    for query, answer in answers.items():
        unique = list(dict.fromkeys(answer.ids))
        for rank, document in enumerate(unique):
            yield ScoredDoc(query, document, float(len(unique) - rank))


def _report(
    scores: Mapping[str, NDArray[np.float64]], answers: Sequence[Answer], p_values: Mapping[str, float] | None
) -> Report:
    names = dict.fromkeys(stage for answer in answers for stage in answer.stages)
    times = {name: [a.stages[name] for a in answers if name in a.stages] for name in names}
    return Report(
        measures={name: float(values.mean()) for name, values in scores.items()},
        latency=Latency.of([answer.took_ms for answer in answers]),
        stages={name: Latency.of(taken) for name, taken in times.items()},
        degraded=sum(answer.degraded for answer in answers),
        p_values=p_values,
    )


def _p_values(
    baseline: Mapping[str, NDArray[np.float64]], other: Mapping[str, NDArray[np.float64]], seed: int
) -> dict[str, float]:
    return {name: randomisation_test(baseline[name], other[name], seed=seed) for name in MEASURES}


def _all_signed_sums(values: NDArray[np.float64]) -> NDArray[np.float64]:
    sums = np.zeros(1)
    for value in values:
        sums = np.concatenate([sums + value, sums - value])
    return sums


def _random_signed_sums(
    values: NDArray[np.float64], samples: int, generator: np.random.Generator
) -> Iterable[NDArray[np.float64]]:
    """In blocks, so that a thousand queries do not ask for a gigabyte."""
    block = 2_000
    for begin in range(0, samples, block):
        signs = (
            generator.integers(0, 2, (min(block, samples - begin), len(values)), dtype=np.int8) * 2.0 - 1.0
        )
        yield signs @ values
