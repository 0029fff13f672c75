"""Learned sparse retrieval: passages by the weights that a net gave to vocabulary entries, said or not.

A question is weighed by the same net or, where the collection says so, without any: every word piece counts
once, by its idf (Geng et al., "Towards Competitive Search Relevance for Inference-Free Learned Sparse
Retrievers", 2024). Scores are sums of integers, so they do not depend on segments or on how they were found;
which passages are found does only where a search is approximate (see `indexer.segment.sparse`).
"""

from collections.abc import Callable, Sequence
from typing import Annotated, ClassVar, Literal

import numpy as np
from pydantic import Field

from indexer.segment.manifest import OWN_IDF, Component
from indexer.segment.plan import Plan, Strategy
from indexer.segment.sparse import Question, question
from indexer.segment.sparse import Sparse as Vectors
from models.idf import idf_query
from service.errors import EncoderError
from service.idf import IDF
from service.limits import Limit
from service.stages.lookup import scored
from service.stages.retrieved import retrieved
from service.types import Hits, Scores, Search, Seqs, Stage, Term, Terms

_APPROXIMATE = " Of approximate search; by default what was found to miss little."


class Sparse(Stage):
    """Find passages by weighted words, their own and related ones."""

    starts: ClassVar[bool] = True
    needs: ClassVar[Component | None] = "sparse"
    floor: ClassVar[float | None] = 0.0
    scores_any: ClassVar[bool] = True

    stage: Literal["sparse"] = "sparse"
    k: Annotated[int, Field(ge=1), Limit("candidates")] = Field(1000, description="Hits found.")
    strategy: Strategy = Field(
        "auto",
        description="`exact` misses nothing; `approximate` may, where a segment is large; `auto` chooses by "
        "size, depth and filter.",
    )
    query_cut: int | None = Field(
        None, ge=1, le=65_536, description="So many of the heaviest terms are looked at first." + _APPROXIMATE
    )
    heap_factor: float | None = Field(
        None, ge=0, le=1, description="Share of the k-th best score that a block must promise." + _APPROXIMATE
    )
    dismissal: float | None = Field(
        None, ge=0, le=1, description="Share of it that a passage's largest weights must give." + _APPROXIMATE
    )

    async def __call__(self, search: Search, hits: Hits) -> Hits:
        """Have the question encoded if it must be, then search every part of the snapshot in one thread."""
        if not search.snapshot.parts:
            return retrieved(self.stage, [], self.k)
        read = await reader(search)
        return await search.in_thread(lambda: look(search, read(), self.k, self._plan(), self.stage))

    async def score(self, search: Search, seqs: Seqs) -> Scores:
        """float32 [seqs]: the products of weights of the question and each passage, 0 where none match."""
        if not len(seqs):
            return np.empty(0, np.float32)
        read = await reader(search)
        return await search.in_thread(self._score, search, seqs, read)

    def explain(self, search: Search, seqs: Seqs) -> list[list[Term]]:
        """What each matching term gave to each passage's score, most first."""
        asked: Question | None = search.questions.get(self.stage)
        if asked is None:
            return [[] for _ in seqs]
        words = search.nets.words(search.snapshot.schema.sparse_encoder, asked.terms)
        parts, rows = search.snapshot.locate(seqs)
        return [
            _terms(search.snapshot.parts[part].sparse, asked, words, row)
            for part, row in zip(parts.tolist(), rows.tolist(), strict=True)
        ]

    def _score(self, search: Search, seqs: Seqs, read: Callable[[], Question]) -> Scores:
        asked = read()
        return scored(search, seqs, lambda part, rows: part.sparse.scores(asked, rows))

    def _plan(self) -> Plan:
        knobs = self.model_dump(include={"query_cut", "heap_factor", "dismissal"}, exclude_none=True)
        return Plan(self.strategy, **knobs)


async def reader(search: Search) -> Callable[[], Question]:
    """What gives the question as it is searched, in a worker thread; encoded by the first stage to ask."""
    known: Question | None = search.questions.get("sparse")
    if known is not None:
        return lambda: known
    async with search.in_time():
        weighed = await _weigher(search)

    def read() -> Question:
        asked = search.questions["sparse"] = in_units(search, weighed())
        return asked

    return read


def look(search: Search, asked: Question, k: int, plan: Plan, name: str) -> Hits:
    """The k passages that score best by `asked`, raw scores by `name`; for a worker thread."""
    found, best = [], np.empty(0, np.float32)
    for part, allowed in zip(search.snapshot.parts, search.allowed, strict=True):
        search.check_time()
        floor = float(best[-1]) if len(best) == k else 0.0
        rows, scores = part.sparse.search(asked, k, allowed, plan, floor)
        found.append((part.segment.store.seqs[rows], scores))
        best = -np.sort(-np.concatenate([best, scores]))[:k]
    return retrieved(name, found, k)


async def _weigher(search: Search) -> Callable[[], Terms]:
    """What gives the question's vocabulary entries and weights, in a worker thread and without a net."""
    manifest, nets = search.snapshot.manifest, search.nets
    schema, fingerprint = manifest.schema_, manifest.fingerprints.get("sparse")
    if schema.sparse_query == "encoder":
        terms = await nets.query_terms(schema.sparse_encoder, fingerprint, search.query)
        return lambda: terms
    pieces = await nets.pieces(schema.sparse_encoder, fingerprint)
    return lambda: idf_query(pieces([search.query])[0], _idf(search)).row(0)


def _idf(search: Search) -> Scores:
    """The weights of word pieces: those of the generation's live passages, those of a table, or both.

    What is rare here the encoder's table cannot know, and what matters in questions the passages do not say:
    `both` is the geometric mean.
    """
    manifest, schema = search.snapshot.manifest, search.snapshot.schema
    if schema.sparse_query == "both":
        own = search.nets.idf_table(OWN_IDF, None, schema.sparse_encoder)
        return np.sqrt(np.maximum(own, 0) * search.snapshot.piece_idf)
    if schema.sparse_idf is None:
        return search.snapshot.piece_idf
    return search.nets.idf_table(schema.sparse_idf, manifest.fingerprints.get(IDF), schema.sparse_encoder)


def in_units(search: Search, terms: Terms) -> Question:
    """The question in the units of the collection's vectors, which are those of the encoder."""
    try:
        return question(*terms, search.snapshot.parts[0].sparse.step)
    except ValueError as error:
        encoder = search.snapshot.schema.sparse_encoder
        raise EncoderError(f"what {encoder} makes of the question cannot be searched: {error}") from error


def _terms(vectors: Vectors, asked: Question, words: Sequence[str], row: int) -> list[Term]:
    """The terms of the question that a passage has, those that gave most to its score first."""
    unit = asked.factor / vectors.step
    found: list[Term] = [
        {
            "term": word,
            "query": weight * unit,
            "passage": code * vectors.step,
            "score": weight * code * asked.factor,
        }
        for word, weight, code in zip(
            words, asked.weights.tolist(), vectors.codes_of(asked, row).tolist(), strict=True
        )
        if code
    ]
    return sorted(found, key=lambda term: (-term["score"], term["term"]))
