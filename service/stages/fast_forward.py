"""Fast-Forward rescoring: what a sparse retriever found is scored by vectors that are looked up.

`score = sparse_weight · score so far + (1 - sparse_weight) · cosine`, for the hits that come in and no
others, so nothing is ever missing on either side. A document is its passages: `max`, `mean`, `first` and
`top` score it by all of those the search may find, also such as no retriever found (Leonhardt et al.,
"Efficient Neural Ranking using Forward Indexes", WWW 2022; extended in "… and Lightweight Encoders", 2023).

Early stopping leaves out look-ups and nothing else: see `service.interpolate`. It is as safe for documents,
since neither a mean nor a maximum of cosines exceeds what no cosine exceeds, and with `minmax`, which is of
the incoming scores only: they are all known beforehand, and their order stays. Cosines are never normalised
here; their extremes would be known only once all were looked up.
"""

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from indexer.segment.manifest import Component
from service.interpolate import bound_of_products, interpolate
from service.limits import Limit
from service.stages.dense import question_vector
from service.stages.group import Group
from service.stages.lookup import scored, siblings
from service.stages.normalise import minmax
from service.types import Hits, Scores, Search, Seqs, Stage

FIRST_BLOCK = 64
"""Candidates that are looked up before the bound is; below that a look costs more than it can save."""

Aggregate = Literal["max", "mean", "first", "top"]


class FastForward(Stage):
    """Rescore hits by their passages' vectors."""

    needs: ClassVar[Component | None] = "dense"

    stage: Literal["fast_forward"] = "fast_forward"
    k: Annotated[int, Field(ge=1), Limit("candidates")] = Field(1000, description="Hits kept.")
    sparse_weight: float = Field(
        0.1, ge=0, le=1, description="Share of the score so far; the rest is the cosine's."
    )
    normalisation: Literal["none", "minmax"] = Field(
        "none", description="Of the score so far; `minmax`: on [0, 1] over the hits that come in."
    )
    aggregate: Literal["passage", "max", "mean", "first", "top"] = Field(
        "passage",
        description="What is scored: each hit's own passage, or its document by its best passage, by the "
        "mean of all, by the first or by the mean of the `n` best. A document is one hit, standing on its "
        "passage of the largest cosine (`first`: on the first).",
    )
    n: int = Field(3, ge=1, le=1000, description="Passages that `top` looks at.")
    early_stopping: bool = Field(
        True, description="Look up no more vectors than it takes to be sure of the k best."
    )

    async def __call__(self, search: Search, hits: Hits) -> Hits:
        """Have the question encoded, then rescore in one thread."""
        if not len(hits):
            return hits
        question = await question_vector(search)
        return await search.in_thread(self._rescore, search, hits, question)

    def _rescore(self, search: Search, hits: Hits, question: Scores) -> Hits:
        candidates = hits
        if self.aggregate != "passage":
            candidates = Group().group(hits, search.snapshot.document_keys(hits.seqs))
        before = candidates.scores.astype(np.float64)
        if self.normalisation == "minmax":
            before = minmax(candidates.scores, hits.scores)
        seqs = candidates.seqs.copy()

        def look_up(block: slice) -> Scores:
            seqs[block], cosines = self._look_up(search, candidates.seqs[block], question)
            return cosines

        bound = self._bound(search, question) if self.early_stopping and self.k < len(seqs) else None
        scores, cosines = interpolate(
            before, look_up, self.sparse_weight, bound, self.k, max(self.k, FIRST_BLOCK)
        )
        search.notes.counts["scored"] = len(scores)
        raw = candidates.take(slice(0, len(scores))).raw
        return Hits(seqs[: len(scores)], scores, _with_cosines(raw, cosines)).best(self.k)

    def _look_up(self, search: Search, seqs: Seqs, question: Scores) -> tuple[Seqs, Scores]:
        """For every candidate the passage that it stands on from now on, and its dense score."""
        if self.aggregate == "passage":
            return seqs, _cosines(search, seqs, question)
        passages, owners = siblings(search, seqs)
        cosines = _cosines(search, passages, question)
        stand, scores = aggregated(cosines, owners, self.aggregate, self.n)
        return passages[stand], scores

    def _bound(self, search: Search, question: Scores) -> float:
        return bound_of_products(question, max(part.dense.longest for part in search.snapshot.parts))


def aggregated(
    cosines: Scores, owners: NDArray[np.intp], how: Aggregate, n: int
) -> tuple[NDArray[np.intp], Scores]:
    """For every owner, which of its passages it stands on, as a position, and its score.

    `owners` [passages] ascend and leave out none; an owner's passages are in their order. Sums are of float64
    from the largest cosine on, so they do not depend on which other owners there are, and a mean, rounded to
    float32, is never above the largest.
    """
    begins = np.flatnonzero(np.diff(owners, prepend=-1))
    if how == "first":
        return begins, cosines[begins]
    order = np.lexsort((-cosines, owners))
    best = order[begins]
    if how == "max":
        return best, cosines[best]
    counted = np.arange(len(owners)) - begins[owners] < (n if how == "top" else len(owners))
    totals = np.bincount(owners[counted], cosines[order][counted].astype(np.float64))
    return best, (totals / np.bincount(owners[counted])).astype(np.float32)


def _cosines(search: Search, seqs: Seqs, question: Scores) -> Scores:
    return scored(search, seqs, lambda part, rows: part.dense.scores(question, rows))


def _with_cosines(raw: Mapping[str, Scores], cosines: Scores) -> dict[str, Scores]:
    """Raw scores with the cosines under `dense`, where dense retrieval has not left its own."""
    known = raw.get("dense", np.full(len(cosines), np.nan, np.float32))
    return {**raw, "dense": np.where(np.isnan(known), cosines, known)}
