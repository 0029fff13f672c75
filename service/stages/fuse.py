"""Several pipelines' hits into one ranking: weighted scores or weighted ranks.

Inputs run concurrently and each at its own depth, never derived from `top_k`, so fused scores do not change
with the page asked for. Every input's raw scores are kept. An input that fails is left out and said so;
only when all fail does fusion.

- `linear`: convex combination of min-max normalised scores: (x - min) / (max - min) over the input's hits, 0
  where all of them are equal and for what an input did not find (Bruch, Gai and Ingber, "An Analysis of
  Fusion Functions for Hybrid Retrieval", TOIS 2023).
- `rrf`: sum of weight / (c + rank), ranks from 1 (Cormack, Clarke and Buettcher, SIGIR 2009).
"""

import asyncio
from collections.abc import Coroutine, Sequence
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, Strict, model_validator

from service.limits import Limit
from service.pipeline import Outcome, run
from service.stages.group import Group
from service.types import Hits, Scores, Search, Stage

if TYPE_CHECKING:
    from service.stages import Pipeline

Weight = Annotated[float, Field(ge=0, le=1e6)]


class Input(NamedTuple):
    """Hits to fuse: of each, the number of what it is a hit of, and what it adds to that one's score."""

    hits: Hits
    units: NDArray[np.int64]
    shares: NDArray[np.float64]


class Fuse(Stage):
    """Fuse the hits of several pipelines."""

    starts: ClassVar[bool] = True

    stage: Literal["fuse"] = "fuse"
    method: Literal["linear", "rrf"] = "linear"
    normalisation: Literal["minmax"] = Field("minmax", description="How `linear` makes scores comparable.")
    inputs: Annotated[tuple["Pipeline", ...], Strict(False)] = Field(min_length=1)
    weights: Annotated[tuple[Weight, ...], Strict(False)] | None = Field(
        None, description="One per input; equal ones that sum to 1 by default."
    )
    unit: Literal["passage", "document"] = Field(
        "passage",
        description="What is fused. `document`: every input is grouped by its best passages first, and a hit "
        "stands on the passage that gave it most.",
    )
    c: float = Field(60.0, ge=0, le=1e6, description="The constant of `rrf`.")
    k: Annotated[int, Field(ge=1), Limit("candidates")] = Field(1000, description="Hits kept.")

    @model_validator(mode="after")
    def _one_weight_per_input(self) -> Self:
        if self.weights is not None and len(self.weights) != len(self.inputs):
            raise ValueError(f"{len(self.weights)} weights for {len(self.inputs)} inputs: give one for each")
        return self

    async def __call__(self, search: Search, hits: Hits) -> Hits:
        """Run the inputs and fuse what they found."""
        outcomes = await _side_by_side([run(stages, search) for stages in self.inputs])
        self._note(search, outcomes)
        weights = self.weights or (1 / len(self.inputs),) * len(self.inputs)
        found = [(o.hits, w) for o, w in zip(outcomes, weights, strict=True) if o.failure is None]
        if not found:
            raise next(o.failure for o in outcomes if o.failure is not None)
        inputs = [self._input(search, hits, weight) for hits, weight in found]
        return fuse(inputs, self.k)

    def _input(self, search: Search, hits: Hits, weight: float) -> Input:
        if self.unit == "passage":
            return Input(hits, hits.seqs, self._scores(hits) * weight)
        grouped = Group().group(hits, search.snapshot.document_keys(hits.seqs))
        return Input(grouped, search.snapshot.document_keys(grouped.seqs), self._scores(grouped) * weight)

    def _scores(self, hits: Hits) -> NDArray[np.float64]:
        if self.method == "rrf":
            return np.reciprocal(self.c + np.arange(1, len(hits) + 1, dtype=np.float64))
        return minmax(hits.scores)

    def _note(self, search: Search, outcomes: Sequence[Outcome]) -> None:
        search.notes.inputs.extend(outcome.accounts for outcome in outcomes)
        for outcome in outcomes:
            for account in outcome.accounts:
                if account["status"] != "ran":
                    search.notes.reasons.append(
                        f"{account['stage']} {account['status']}: {account['reason']}"
                    )


async def _side_by_side(runs: Sequence[Coroutine[Any, Any, Outcome]]) -> list[Outcome]:
    """Every outcome; an error that is no stage's, a malformed question say, ends the other runs."""
    tasks = [asyncio.ensure_future(each) for each in runs]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()


def fuse(inputs: Sequence[Input], k: int) -> Hits:
    """The k best units by the sum of their shares, each standing on the passage that gave it most."""
    units = np.unique(np.concatenate([each.units for each in inputs]))
    total, most = np.zeros(len(units)), np.full(len(units), -1.0)
    seqs = np.empty(len(units), np.int64)
    raw: dict[str, Scores] = {}
    for hits, of, shares in inputs:
        rows = np.searchsorted(units, of)
        total[rows] += shares
        more = shares > most[rows]
        seqs[rows[more]], most[rows[more]] = hits.seqs[more], shares[more]
        for name, values in hits.raw.items():
            spread = raw[_unused(name, raw)] = np.full(len(units), np.nan, np.float32)
            spread[rows] = values
    return Hits(seqs, total.astype(np.float32), raw).best(k)


def minmax(scores: Scores) -> NDArray[np.float64]:
    """Scores on [0, 1]; all 0 where they are equal, since they then say nothing about order."""
    if len(scores) == 0:
        return np.zeros(0)
    low, high = float(scores.min()), float(scores.max())
    return (scores.astype(np.float64) - low) / (high - low or 1.0)


def _unused(name: str, used: dict[str, Scores]) -> str:
    """`bm25`, then `bm25_2`, … when two inputs hold the same kind of stage."""
    number = 1
    while name in used:
        number += 1
        name = f"{name.removesuffix(f'_{number - 1}')}_{number}"
    return name
