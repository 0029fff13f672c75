"""Pseudo-relevance feedback: the best hits are taken for relevant, and what is like them is searched for.

The question's vector q becomes `alpha * q + beta * mean(best hits) - gamma * mean(last hits)` (`rocchio`), or
the mean of the question and the best hits, each of which counts as much as the question (`average`): Li et
al., "Pseudo Relevance Feedback with Deep Language Models and Dense Retrievers: Successes and Pitfalls", 2021.
Vectors of passages are read from the index, whichever stage found them, and no net runs for it. What gains is
recall, rarely the first ranks.

- `dense`: vectors are of unit length and so is the new question, so scores are cosines again.
- `sparse`: vectors are distributions over vocabulary entries (divided by their sum), of the best hits' mean
  only the `terms` heaviest entries are kept, and entries that come out negative are left out. With `gamma` 0
  this is RM3 with passages of equal weight, `alpha` weighing the question and `beta` the relevance model
  (Lavrenko and Croft, "Relevance-Based Language Models", SIGIR 2001; Abdul-Jaleel et al., "UMass at TREC
  2004").

The second search looks at every allowed passage anew. Whether words come in before feedback, after it or both
(Li et al., "To Interpolate or not to Interpolate: PRF, Dense and Sparse Retrievers", SIGIR 2022) is a matter
of composition: `[fuse([bm25], [dense]), feedback]`, `fuse([bm25], [dense, feedback])`, or
`fuse([bm25], [fuse([bm25], [dense]), feedback])`.
"""

from collections.abc import Callable, Sequence
from typing import Annotated, Any, ClassVar, Literal, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from indexer.segment.manifest import Component
from indexer.segment.plan import Plan
from indexer.segment.sparse import Question
from service.limits import Limit
from service.stages.dense import question_vector, scan
from service.stages.lookup import by_part
from service.stages.normalise import Values
from service.stages.retrieved import retrieved
from service.stages.sparse import in_units, look, reader
from service.types import Hits, Scores, Search, Seqs, Stage

Entries = tuple[NDArray[np.int32], NDArray[Any]]  # vocabulary entries and their weights

MOST_PASSAGES = 100

USUAL = {"average": 3, "rocchio": 5}
"""How many hits are taken for relevant by each method."""


class Weights(NamedTuple):
    """Of the question, of the mean of the nearest hits and of that of the farthest."""

    question: float
    near: float
    far: float


class Feedback(Stage):
    """Search again for what is like the best hits."""

    starts: ClassVar[bool] = False

    stage: Literal["feedback"] = "feedback"
    component: Literal["dense", "sparse"] = Field("dense", description="Whose vectors are used and searched.")
    method: Literal["average", "rocchio"] = Field(
        "rocchio", description="`average`: the question counts as much as each hit."
    )
    m: int | None = Field(
        None,
        ge=0,
        le=MOST_PASSAGES,
        description="Best hits taken for relevant, passages; by default 3 by `average` and 5 by `rocchio`. "
        "With none the question stays as it is.",
    )
    alpha: float = Field(0.4, ge=0, le=1e6, description="Weight of the question, by `rocchio`.")
    beta: float = Field(0.6, ge=0, le=1e6, description="Weight of the best hits' mean, by `rocchio`.")
    gamma: float = Field(0.0, ge=0, le=1e6, description="Weight taken off for the last hits', by `rocchio`.")
    bottom: int = Field(
        0, ge=0, le=MOST_PASSAGES, description="Last hits taken for irrelevant, none of the best among them."
    )
    terms: int = Field(
        50, ge=1, le=1000, description="Heaviest vocabulary entries kept of the best hits, if `sparse`."
    )
    k: Annotated[int, Field(ge=1), Limit("candidates")] = Field(1000, description="Hits found.")

    @model_validator(mode="after")
    def _something_is_weighed(self) -> Self:
        if self.alpha == self.beta == 0:
            raise ValueError("alpha and beta are both 0: nothing would be asked for")
        return self

    @property
    def needs(self) -> Component:
        """What `component` says."""
        return self.component

    @property
    def floor(self) -> float:
        """That of a cosine, or of products of positive weights."""
        return -1.0 if self.component == "dense" else 0.0

    async def __call__(self, search: Search, hits: Hits) -> Hits:
        """Ask again; earlier raw scores stay with the hits that had them."""
        if not search.snapshot.parts:
            return retrieved(self.stage, [], self.k)
        found = await (self._dense(search, hits) if self.component == "dense" else self._sparse(search, hits))
        return _with_earlier(found, hits)

    async def _dense(self, search: Search, hits: Hits) -> Hits:
        vector = await question_vector(search)
        return await search.in_thread(self._scan, search, hits, vector)

    def _scan(self, search: Search, hits: Hits, vector: Scores) -> Hits:
        near, far = (_vectors(search, seqs) for seqs in self._chosen(hits))
        if len(near):
            wanted = rocchio(vector.astype(np.float64), near, far, self._weights(len(near)))
            vector = _unit(wanted, vector)
        return scan(search, vector, self.k, self.stage)

    async def _sparse(self, search: Search, hits: Hits) -> Hits:
        read = await reader(search)
        return await search.in_thread(self._look, search, hits, read)

    def _look(self, search: Search, hits: Hits, read: Callable[[], Question]) -> Hits:
        asked = self._expanded(search, hits, read())
        return look(search, asked, self.k, Plan("exact"), self.stage)

    def _expanded(self, search: Search, hits: Hits, asked: Question) -> Question:
        """The question with the terms of the best hits; itself where there are none."""
        near, far = (_rows(search, seqs) for seqs in self._chosen(hits))
        if not near:
            return asked
        entries = np.unique(np.concatenate([asked.terms, *(terms for terms, _ in [*near, *far])]))
        question = _distributions([(asked.terms, asked.weights)], entries)[0]
        relevant = _heaviest(_distributions(near, entries).mean(axis=0), self.terms)
        wanted = rocchio(
            question,
            relevant[None] / relevant.sum(),
            _distributions(far, entries),
            self._weights(len(near)),
        ).astype(np.float32)
        kept = wanted > 0
        return in_units(search, (entries[kept], wanted[kept])) if kept.any() else asked

    def _chosen(self, hits: Hits) -> tuple[Seqs, Seqs]:
        """The hits taken for relevant and those for irrelevant, fewer where there are not so many."""
        most = USUAL[self.method] if self.m is None else self.m
        rest = hits.seqs[most:]
        far = self.bottom if self.method == "rocchio" and self.gamma > 0 and most > 0 else 0
        return hits.seqs[:most], rest[max(0, len(rest) - far) :]

    def _weights(self, near: int) -> Weights:
        if self.method == "average":
            return Weights(1 / (near + 1), near / (near + 1), 0.0)
        return Weights(self.alpha, self.beta, self.gamma)


def rocchio(question: Values, near: Values, far: Values, weights: Weights) -> Values:
    """`question` [dim], moved towards the mean of `near` [1…, dim] and away from that of `far` [0…, dim]."""
    moved: Values = weights.question * question + weights.near * near.mean(axis=0)
    if len(far):
        moved -= weights.far * far.mean(axis=0)
    return moved


def _unit(wanted: Values, otherwise: Scores) -> Scores:
    """The direction as float32 of unit length; that of the question where everything cancelled out."""
    length = float(np.sqrt((wanted * wanted).sum()))
    return (wanted / length).astype(np.float32) if length > 0 else otherwise


def _vectors(search: Search, seqs: Seqs) -> Values:
    """Dense vectors of passages, [n, dim]."""
    found = np.empty((len(seqs), search.snapshot.parts[0].dense.dim))
    for part, places, rows in by_part(search, seqs):
        found[places] = part.dense.rows_as_float(rows)
    return found


def _rows(search: Search, seqs: Seqs) -> list[Entries]:
    """Sparse vectors of passages, those without any left out."""
    found: dict[int, Entries] = {}
    for part, places, rows in by_part(search, seqs):
        offsets, terms, weights = part.sparse.vectors(rows)
        for place, begin, end in zip(places.tolist(), offsets[:-1], offsets[1:], strict=True):
            if begin < end:
                found[place] = terms[begin:end], weights[begin:end]
    return [found[place] for place in sorted(found)]


def _distributions(rows: Sequence[Entries], entries: NDArray[np.int32]) -> Values:
    """[rows, entries]: each row's weights divided by their sum."""
    found = np.zeros((len(rows), len(entries)))
    for row, (terms, weights) in zip(found, rows, strict=True):
        row[np.searchsorted(entries, terms)] = weights
        row /= row.sum() or 1.0  # a question may have no terms
    return found


def _heaviest(weights: Values, most: int) -> Values:
    """The heaviest of the weights, of equal ones the first; the others 0."""
    kept = np.argsort(-weights, kind="stable")[:most]
    found = np.zeros(len(weights))
    found[kept] = weights[kept]
    return found


def _with_earlier(found: Hits, hits: Hits) -> Hits:
    """Add the raw scores that hits had before, NaN for those that were not there."""
    order = np.argsort(hits.seqs)
    places = np.searchsorted(hits.seqs[order], found.seqs)
    known = np.isin(found.seqs, hits.seqs)
    raw = {}
    for name, values in hits.raw.items():
        raw[name] = np.full(len(found), np.nan, np.float32)
        raw[name][known] = values[order[places[known]]]
    return Hits(found.seqs, found.scores, {**raw, **found.raw})
