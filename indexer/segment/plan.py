"""Which way a segment's sparse vectors are searched, by what was measured (docs/decisions/0008).

Three ways give the same scores. Adding up the question's postings costs their number, whatever is allowed;
scoring allowed rows one by one costs theirs; lists cost little of either and may miss hits. What lists miss
depends on how many rows are allowed for each hit wanted: the fewer, the further they are searched, until
another way is cheaper.
"""

from typing import Literal, NamedTuple

from indexer.kernels.seismic import Knobs

Strategy = Literal["auto", "exact", "approximate"]

ROW = 65
"""Scoring one row by itself costs as much as adding up so many postings."""

PER_HIT = 350
"""Allowed rows per hit below which lists miss too many."""

MANY_PER_HIT = 2_500
"""Rows per hit from which lists are cheaper than adding up postings."""

FEW_TERMS = 12
"""Questions of fewer terms have few postings, and hits that no list is likely to have kept."""

WIDER = ((4_000, 1.0, 1.0), (1_500, 1.5, 0.6), (700, 2.0, 0.35), (0, 3.0, 0.0))
"""Allowed rows per hit from which the query cut is multiplied by so much, and both shares by so much."""

TYPICAL_HITS = 10


class Plan(NamedTuple):
    """How to search: the way, and how far lists are searched (see `kernels.seismic`).

    `exact` never uses lists, `approximate` does wherever they can find enough, `auto` where they are also
    cheaper.
    """

    strategy: Strategy = "auto"
    query_cut: int = 8
    heap_factor: float = 0.8
    dismissal: float = 0.6


USUAL = Plan()


def by_lists(plan: Plan, k: int, rows: int, allowed: int, terms: int) -> bool:
    """Whether a segment of so many rows is to be searched by its lists, so many of them being allowed."""
    hits = max(k, TYPICAL_HITS)
    enough = allowed >= PER_HIT * hits
    if plan.strategy == "auto":
        return enough and rows >= MANY_PER_HIT * hits and terms >= FEW_TERMS
    return enough and plan.strategy == "approximate"


def by_rows(allowed: int, postings: int) -> bool:
    """Whether it is cheaper to score the allowed rows than to add up the question's postings."""
    return allowed * ROW < postings


def knobs(plan: Plan, k: int, allowed: int) -> Knobs:
    """How far to search the lists for k of so many allowed rows."""
    per_hit = allowed / max(k, TYPICAL_HITS)
    more, share = next((more, share) for least, more, share in WIDER if per_hit >= least)
    cut = max(1, round(plan.query_cut * more))
    return Knobs(cut, plan.heap_factor * share, plan.dismissal * share)
