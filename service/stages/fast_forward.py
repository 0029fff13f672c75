"""Fast-Forward rescoring: what a sparse retriever found is scored by vectors that are looked up.

`score = sparse_weight · score so far + (1 - sparse_weight) · cosine`, for the hits that come in and no
others, so nothing is ever missing on either side. A document is its passages: `max`, `mean`, `first` and
`top` score it by all of those the search may find, also such as no retriever found (Leonhardt et al.,
"Efficient Neural Ranking using Forward Indexes", WWW 2022; extended in "… and Lightweight Encoders", 2023).

Early stopping leaves out look-ups and nothing else: see `service.interpolate`, and for what it saves
`benchmarks.early_stopping`. It is as safe for documents, since neither a mean nor a maximum of cosines
exceeds what no cosine exceeds, and with `minmax`, which is of the incoming scores only: they are all known
beforehand, and their order stays. Cosines are never normalised here; their extremes would be known only once
all were looked up.
"""

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from indexer.segment.manifest import Component
from service.interpolate import bound_of_products, interpolate
from service.limits import Limit
from service.stages.dense import foresee_vector, question_vector
from service.stages.group import Group
from service.stages.lookup import siblings
from service.stages.normalise import minmax
from service.types import Hits, Scores, Search, Seqs, Stage

FIRST_BLOCK = 128
"""Candidates that are looked up before the bound is; below that a look costs more than it can save."""

Aggregate = Literal["max", "mean", "first", "top"]


class FastForward(Stage):
    """Rescore hits by their passages' vectors."""

    needs: ClassVar[Component | None] = "dense"

    stage: Literal["fast_forward"] = "fast_forward"
    k: Annotated[int, Field(ge=1), Limit("candidates")] = Field(1000, description="Hits kept.")
    sparse_weight: float = Field(
        0.2,
        ge=0,
        le=1,
        description="Share of the score so far; the rest is the cosine's. Of bm25's own scores, not "
        "normalised, 0.05 does about what 0.2 does of normalised ones.",
    )
    normalisation: Literal["none", "minmax"] = Field(
        "minmax", description="Of the score so far; `minmax`: on [0, 1] over the hits that come in."
    )
    aggregate: Literal["passage", "max", "mean", "first", "top"] = Field(
        "passage",
        description="What is scored: each hit's own passage, or its document by its best passage, by the "
        "mean of all, by the first or by the mean of the `n` best. A document is one hit, standing on its "
        "passage of the largest cosine (`first`: on the first).",
    )
    n: int = Field(3, ge=1, le=1000, description="Passages that `top` looks at.")
    early_stopping: bool = Field(
        False,
        description="Look up no more vectors than it takes to be sure of the `k` best, which stay the same. "
        "It pays where vectors are read from the disk; in memory a look-up costs next to nothing.",
    )

    def begin(self, search: Search) -> None:
        """Have the question encoded while others find the hits."""
        if search.snapshot.parts:
            foresee_vector(search)

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
        bound = self._bound(search, question) if self.early_stopping and self.k < len(candidates) else None
        vectors = self._vectors(search, candidates, question)
        scores, cosines = interpolate(
            before, vectors.look_up, self.sparse_weight, bound, self.k, max(self.k, FIRST_BLOCK)
        )
        search.notes.counts["scored"] = len(scores)
        raw = candidates.take(slice(0, len(scores))).raw
        return Hits(vectors.stand[: len(scores)], scores, _with_cosines(raw, cosines)).best(self.k)

    def _vectors(self, search: Search, candidates: Hits, question: Scores) -> "_Vectors":
        if self.aggregate == "passage":
            return _Vectors(search, candidates.seqs, question)
        passages, owners = siblings(search, candidates.seqs)
        return _Documents(search, passages, question, owners, self.aggregate, self.n)

    def _bound(self, search: Search, question: Scores) -> float:
        return bound_of_products(question, max(part.dense.longest for part in search.snapshot.parts))


class _Vectors:
    """Looks up the vectors of passages; every candidate is one and stands on itself.

    Where the passages lie is found out for all at once, which costs less than for some of them again and
    again; the vectors are what is read a block at a time.
    """

    def __init__(self, search: Search, passages: Seqs, question: Scores) -> None:
        self.stand = passages
        self._search, self._question = search, question
        self._parts, self._rows = search.snapshot.locate(passages)

    def look_up(self, block: slice) -> Scores:
        """The dense scores of these candidates. DeadlineError if there is no time for it."""
        self._search.check_time()
        parts, rows = self._parts[block], self._rows[block]
        cosines = np.empty(len(rows), np.float32)
        for number in np.unique(parts).tolist():
            inside = parts == number
            dense = self._search.snapshot.parts[number].dense
            cosines[inside] = dense.scores(self._question, rows[inside])
        return cosines


class _Documents(_Vectors):
    """Every candidate is a document, the owner of some passages; where it stands is known once looked up."""

    def __init__(
        self,
        search: Search,
        passages: Seqs,
        question: Scores,
        owners: NDArray[np.intp],
        how: Aggregate,
        n: int,
    ) -> None:
        super().__init__(search, passages, question)
        self._passages, self._owners, self._how, self._n = passages, owners, how, n
        self._begins = np.searchsorted(owners, np.arange(owners[-1] + 2))
        self.stand = passages[self._begins[:-1]]

    def look_up(self, block: slice) -> Scores:
        begin, end = self._begins[[block.start, block.stop]].tolist()
        cosines = super().look_up(slice(begin, end))
        stand, scores = aggregated(cosines, self._owners[begin:end] - block.start, self._how, self._n)
        self.stand[block] = self._passages[begin:end][stand]
        return scores


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


def _with_cosines(raw: Mapping[str, Scores], cosines: Scores) -> dict[str, Scores]:
    """Raw scores with the cosines under `dense`, where dense retrieval has not left its own."""
    known = raw.get("dense", np.full(len(cosines), np.nan, np.float32))
    return {**raw, "dense": np.where(np.isnan(known), cosines, known)}
