"""Several pipelines' hits into one ranking: weighted scores or weighted ranks.

Inputs run concurrently and each at its own depth, never derived from `top_k`, so fused scores do not change
with the page asked for. Every input's raw scores are kept. An input that fails is left out and said so;
only when all fail does fusion.

- `linear`: convex combination of normalised scores, see `service.stages.normalise` (Bruch, Gai and Ingber,
  "An Analysis of Fusion Functions for Hybrid Retrieval", TOIS 2023).
- `rrf`: sum of weight / (c + rank), ranks from 1 (Cormack, Clarke and Buettcher, SIGIR 2009); what an input
  did not find gets nothing from it.

What an input did not find gets from it what the normalisation says (`missing: "floor"`), or its real score
(`missing: "score"`) if that input is one retriever, grouped or not; a document's is the best over all of its
passages. Coefficients come from what was found alone, since those of a union that was filled up would change
with what others find. So a real score that is below the list's lowest comes below 0 by `minmax`; by
`theoretical`, whose lowest score is the scorer's own, it comes where it belongs. The two go well together.
"""

import asyncio
from collections.abc import Coroutine, Sequence
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, NamedTuple, Self, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, Strict, model_validator

from service.errors import StageError
from service.limits import Limit
from service.pipeline import Outcome, run
from service.stages.group import Group, first_of_each
from service.stages.lookup import siblings
from service.stages.normalise import Normalisation, Values, missing, normaliser
from service.types import Hits, Scores, Search, Seqs, Stage

if TYPE_CHECKING:
    from service.stages import Pipeline

Weight = Annotated[float, Field(ge=0, le=1e6)]
Units = NDArray[np.int64]
R = TypeVar("R")


class Listed(NamedTuple):
    """What an input gave: of its hits the first `found` it found, the others it only scored."""

    stages: "Pipeline"
    weight: float
    hits: Hits
    units: Units
    found: int


class Input(NamedTuple):
    """Hits to fuse: of each the number of what it is a hit of, and what it adds to that one's score.

    `missing` is what is added to the score of anything else.
    """

    hits: Hits
    units: Units
    shares: Values
    missing: float = 0.0


class Fuse(Stage):
    """Fuse the hits of several pipelines."""

    starts: ClassVar[bool] = True

    stage: Literal["fuse"] = "fuse"
    method: Literal["linear", "rrf"] = "linear"
    normalisation: Normalisation = Field("minmax", description="How `linear` makes scores comparable.")
    missing: Literal["floor", "score"] = Field(
        "floor",
        description="What a hit gets from an input that did not find it. `floor`: nothing, by `zscore` as "
        "much as the input's last hit. `score`: its real score, where the input is bm25, sparse or dense and "
        "no more than grouped.",
    )
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

    @model_validator(mode="after")
    def _scores_that_there_are(self) -> Self:
        if self.method == "rrf" and self.missing == "score":
            raise ValueError("missing 'score' is for method 'linear': what was not found has no rank")
        if self.method == "linear" and self.normalisation == "theoretical":
            for stages in self.inputs:
                if lowest(stages) is None:
                    raise ValueError(
                        "normalisation 'theoretical' needs the lowest score that an input can give, and "
                        f"none is known of {' > '.join(stage.stage for stage in stages)}: take 'minmax'"
                    )
        return self

    @property
    def floor(self) -> float | None:
        """0, unless a share can be negative."""
        negative = self.normalisation == "zscore" or (self.normalisation, self.missing) == ("minmax", "score")
        return None if self.method == "linear" and negative else 0.0

    async def __call__(self, search: Search, hits: Hits) -> Hits:
        """Run the inputs and fuse what they found."""
        outcomes = await _side_by_side([run(stages, search) for stages in self.inputs])
        self._note(search, outcomes)
        weights = self.weights or (1 / len(self.inputs),) * len(self.inputs)
        lists = [
            self._listed(search, stages, weight, outcome.hits)
            for stages, weight, outcome in zip(self.inputs, weights, outcomes, strict=True)
            if outcome.failure is None
        ]
        if not lists:
            raise next(o.failure for o in outcomes if o.failure is not None)
        if self.missing == "score":
            lists = await self._filled(search, lists)
        return fuse([self._input(each) for each in lists], self.k)

    def _listed(self, search: Search, stages: "Pipeline", weight: float, hits: Hits) -> Listed:
        if self.unit == "passage":
            return Listed(stages, weight, hits, hits.seqs, len(hits))
        documents = search.snapshot.document_keys(hits.seqs)
        best = first_of_each(documents)
        return Listed(stages, weight, hits.take(best), documents[best], len(best))

    async def _filled(self, search: Search, lists: Sequence[Listed]) -> list[Listed]:
        """The same lists, each with the real scores of what only others found, as far as they can be had."""
        units, first = np.unique(np.concatenate([each.units for each in lists]), return_index=True)
        seqs = np.concatenate([each.hits.seqs for each in lists])[first]
        return await _side_by_side([self._scored(search, each, units, seqs) for each in lists])

    async def _scored(self, search: Search, listed: Listed, units: Units, seqs: Seqs) -> Listed:
        scorer, new = _retriever(listed.stages), np.isin(units, listed.units, invert=True)
        if scorer is None or not new.any():
            return listed
        own = search.within(scorer.budget_ms)
        try:
            more = await self._real(own, scorer, seqs[new])
        except StageError as error:
            search.notes.reasons.append(f"{scorer.stage} did not score what others found: {error.detail}")
            return listed
        return listed._replace(
            hits=_joined(listed.hits, more), units=np.concatenate([listed.units, units[new]])
        )

    async def _real(self, search: Search, scorer: Stage, seqs: Seqs) -> Hits:
        """These passages, or the best passages of their documents, with the scores that the stage gives."""
        if self.unit == "passage":
            return _scored_hits(scorer, seqs, await scorer.score(search, seqs))
        every, owners = await search.in_thread(siblings, search, seqs)
        scores = await scorer.score(search, every)
        order = np.lexsort((every, -scores, owners))
        _, first = np.unique(owners[order], return_index=True)
        return _scored_hits(scorer, every[order[first]], scores[order[first]])

    def _input(self, listed: Listed) -> Input:
        hits, found = listed.hits, listed.found
        if self.method == "rrf":
            ranks = np.arange(1, len(hits) + 1, dtype=np.float64)
            return Input(hits, listed.units, listed.weight * np.reciprocal(self.c + ranks))
        normalise = normaliser(self.normalisation, lowest(listed.stages))
        shares = listed.weight * normalise(hits.scores, hits.scores[:found])
        return Input(hits, listed.units, shares, missing(self.normalisation, shares[:found]))

    def _note(self, search: Search, outcomes: Sequence[Outcome]) -> None:
        search.notes.inputs.extend(outcome.accounts for outcome in outcomes)
        for outcome in outcomes:
            for account in outcome.accounts:
                if account["status"] != "ran":
                    search.notes.reasons.append(
                        f"{account['stage']} {account['status']}: {account['reason']}"
                    )


async def _side_by_side(runs: Sequence[Coroutine[Any, Any, R]]) -> list[R]:
    """What every one gives; an error that is no stage's, a malformed question say, ends the other runs."""
    tasks = [asyncio.ensure_future(each) for each in runs]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()


def fuse(inputs: Sequence[Input], k: int) -> Hits:
    """The k best units by the sum of their shares, each standing on the passage that gave it most."""
    units = np.unique(np.concatenate([each.units for each in inputs]))
    total, most = np.zeros(len(units)), np.full(len(units), -np.inf)
    seqs = np.empty(len(units), np.int64)
    raw: dict[str, Scores] = {}
    for hits, of, shares, absent in inputs:
        rows = np.searchsorted(units, of)
        given = np.full(len(units), absent)
        given[rows] = shares
        total += given
        more = shares > most[rows]
        seqs[rows[more]], most[rows[more]] = hits.seqs[more], shares[more]
        for name, values in hits.raw.items():
            spread = raw[_unused(name, raw)] = np.full(len(units), np.nan, np.float32)
            spread[rows] = values
    return Hits(seqs, total.astype(np.float32), raw).best(k)


def lowest(stages: "Pipeline") -> float | None:
    """The lowest score that a pipeline's hits can have; None where none is known."""
    *before, last = stages
    if not isinstance(last, Group):
        return last.floor
    floor = lowest(tuple(before)) if before else None
    return floor if floor is None or last.method != "sum" else min(floor, floor * last.n)


def _retriever(stages: "Pipeline") -> Stage | None:
    """The stage that can score whatever its pipeline did not find; None where the pipeline does more."""
    first, *rest = stages
    grouped = all(isinstance(stage, Group) and stage.method == "max" for stage in rest)
    return first if grouped and first.scores_any else None


def _scored_hits(scorer: Stage, seqs: Seqs, scores: Scores) -> Hits:
    return Hits(seqs, scores, {scorer.stage: scores})


def _joined(hits: Hits, more: Hits) -> Hits:
    raw = {name: np.concatenate([values, more.raw[name]]) for name, values in hits.raw.items()}
    return Hits(np.concatenate([hits.seqs, more.seqs]), np.concatenate([hits.scores, more.scores]), raw)


def _unused(name: str, used: dict[str, Scores]) -> str:
    """`bm25`, then `bm25_2`, … when two inputs hold the same kind of stage."""
    number = 1
    while name in used:
        number += 1
        name = f"{name.removesuffix(f'_{number - 1}')}_{number}"
    return name
