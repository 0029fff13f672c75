"""Running stages one after another, and checking beforehand that they can be.

A pipeline is a list of stages: the first finds hits, the others change them. The loop keeps the account of
what every stage did. A stage that fails costs the answer its contribution, not the answer: later stages are
skipped, and a pipeline whose first stage failed has no hits and says why, so that fusion can go on with its
other inputs.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from service.errors import StageError
from service.tracing import step
from service.types import Account, Hits, Notes, Search, Stage

SHOWN: tuple[Literal["status", "in", "out"], ...] = ("status", "in", "out")
"""What a stage's span says of it."""

NOTHING = Hits(np.empty(0, np.int64), np.empty(0, np.float32), {})


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a pipeline found, what its stages did and, if its first stage failed, why."""

    hits: Hits
    accounts: list[Account]
    failure: StageError | None = None


async def run(stages: Sequence[Stage], search: Search) -> Outcome:
    """Run the stages in order."""
    hits = NOTHING
    accounts: list[Account] = []
    for stage in stages:
        stage.begin(search)
    for stage in stages:
        began, before = time.perf_counter(), len(hits)
        own = search.within(stage.budget_ms)
        failure = None
        with step(stage.stage) as span:
            try:
                hits = await stage(own, hits)
            except StageError as error:
                failure = error
            if stage.starts:
                own.notes.reasons.extend(search.snapshot.missing)
            accounts.append(_account(stage, own.notes, failure, began, before, len(hits)))
            span.set_attributes({f"winnow.{name}": accounts[-1][name] for name in SHOWN})
        if failure is not None and stage.starts:
            return Outcome(NOTHING, accounts, failure)
    return Outcome(hits, accounts)


def degraded(accounts: Sequence[Account]) -> list[str]:
    """Names of the stages that did less than was asked, those inside of fusion included, each once."""
    names: dict[str, None] = {}
    for account in accounts:
        inner = [name for accounts in account["inputs"] for name in degraded(accounts)]
        if account["status"] != "ran" and not inner:
            inner = [account["stage"]]
        names |= dict.fromkeys(inner)
    return list(names)


def _account(
    stage: Stage, notes: Notes, failure: StageError | None, began: float, before: int, after: int
) -> Account:
    reasons = notes.reasons if failure is None else [failure.detail]
    return {
        "stage": stage.stage,
        "status": "skipped" if failure is not None else "degraded" if reasons else "ran",
        "reason": "; ".join(reasons) or None,
        "ms": round((time.perf_counter() - began) * 1000, 3),
        "in": before,
        "out": after,
        "inputs": notes.inputs,
        **notes.counts,
    }
