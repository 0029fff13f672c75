"""What `benchmarks.endpoints` measured, as tables: medians over rounds, of ratios made within a round."""

from collections import defaultdict
from collections.abc import Sequence
from statistics import median
from typing import NamedTuple

from benchmarks.endpoint_loads import Texts

Raw = defaultdict[str, list[float]]
"""By net and what was encoded: texts a second of each round."""


class Rate(NamedTuple):
    """Texts a second, and milliseconds a request."""

    texts: float
    p50: float
    p95: float


Rates = defaultdict[tuple[str, str], list[Rate]]
"""By server and load: of each round."""


def embedding_table(texts: Texts, rates: Rates, raw: Raw) -> str:
    """Both servers, and Winnow beside its net alone."""
    rows = [
        "| | Infinity texts/s | Winnow texts/s | ratio | Infinity p50, p95 ms | Winnow p50, p95 ms "
        "| Winnow / raw |",
        "|---|---|---|---|---|---|---|",
    ]
    for load in texts.embedding():
        theirs, ours = rates["Infinity", load.label], rates["Winnow", load.label]
        alone = raw["winnow queries" if load.texts == 1 else "winnow passages"]
        cells = [
            load.label,
            f"{_median(theirs, 'texts'):.1f}",
            f"{_median(ours, 'texts'):.1f}",
            f"{_ratio([each.texts for each in ours], [each.texts for each in theirs]):.2f}",
            f"{_median(theirs, 'p50'):.1f}, {_median(theirs, 'p95'):.1f}",
            f"{_median(ours, 'p50'):.1f}, {_median(ours, 'p95'):.1f}",
            f"{_ratio([each.texts for each in ours], alone):.2f}",
        ]
        rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows) + "\n"


def raw_lines(raw: Raw) -> str:
    """The nets alone."""
    return "\n".join(f"- alone, {name}: {median(rates):.1f} texts/s" for name, rates in raw.items()) + "\n"


def reranking_table(texts: Texts, rates: Rates, raw: Raw) -> str:
    """Winnow beside its net alone."""
    rows = ["| | documents/s | raw | Winnow / raw | p50, p95 ms |", "|---|---|---|---|---|"]
    alone = raw["late rerank"]
    for load in texts.reranking():
        ours = rates["Winnow", load.label]
        cells = [
            load.label,
            f"{_median(ours, 'texts'):.1f}",
            f"{median(alone):.1f}",
            f"{_ratio([each.texts for each in ours], alone):.2f}",
            f"{_median(ours, 'p50'):.0f}, {_median(ours, 'p95'):.0f}",
        ]
        rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows) + "\n"


def _median(rates: Sequence[Rate], field: str) -> float:
    return float(median(getattr(each, field) for each in rates))


def _ratio(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """The median of the rounds' ratios."""
    return float(median(mine / other for mine, other in zip(ours, theirs, strict=True)))
