"""Lexical retrieval: BM25 over live statistics, or tantivy's query language.

Plain words are analysed as documents were, count as often as they are said and never fail to parse. Document
frequencies and lengths are those of the live passages of the whole snapshot, so neither the number of
segments nor deletions that wait for a merge change a score. Robertson and Zaragoza, "The Probabilistic
Relevance Framework: BM25 and Beyond", 2009, with Lucene's idf.

`query_syntax: "full"` (phrases, boolean, prefix, fuzzy, fields) is scored by tantivy with its own statistics.
"""

from collections import Counter
from typing import Annotated, ClassVar, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from indexer.segment.lexical import Lexical, idf
from indexer.segment.manifest import Component
from service.limits import Limit
from service.snapshot import Snapshot
from service.stages.retrieved import retrieved
from service.types import Hits, Scores, Search, Seqs, Stage, Term

_OWN = "The collection's by default; of no effect on `full` syntax."


class Question(NamedTuple):
    """A question's terms, each once, their weights (frequency in it times idf), and the parameters."""

    terms: list[str]
    weights: NDArray[np.float32]
    parameters: tuple[float, float, float, float]  # k1, b, title_boost, average length


class Bm25(Stage):
    """Find passages by their words."""

    starts: ClassVar[bool] = True
    needs: ClassVar[Component | None] = "bm25"
    floor: ClassVar[float | None] = 0.0
    scores_any: ClassVar[bool] = True

    stage: Literal["bm25"] = "bm25"
    k: Annotated[int, Field(ge=1), Limit("candidates")] = Field(1000, description="Hits found.")
    query_syntax: Literal["plain", "full"] = Field(
        "plain", description="`full`: phrases, AND, OR, NOT, prefixes and fields, scored by tantivy."
    )
    k1: float | None = Field(None, ge=0, le=10, description=_OWN)
    b: float | None = Field(None, ge=0, le=1, description=_OWN)
    title_boost: float | None = Field(None, ge=0, le=100, description=_OWN)

    async def __call__(self, search: Search, hits: Hits) -> Hits:
        """Search every part of the snapshot in one thread."""
        return await search.in_thread(self._full if self.query_syntax == "full" else self._plain, search)

    async def score(self, search: Search, seqs: Seqs) -> Scores:
        """float32 [seqs]: what each of these passages scores, 0 where it matches nothing."""
        work = self._score_full if self.query_syntax == "full" else self._score_plain
        return await search.in_thread(work, search, seqs)

    def explain(self, search: Search, seqs: Seqs) -> list[list[Term]]:
        """What each matching term gave to each passage's score, most first."""
        if self.query_syntax == "full":
            return [[] for _ in seqs]
        question = self._question(search.snapshot, search.query)
        parts, rows = search.snapshot.locate(seqs)
        return [
            _terms(search.snapshot.parts[part].lexical, question, row)
            for part, row in zip(parts.tolist(), rows.tolist(), strict=True)
        ]

    def _plain(self, search: Search) -> Hits:
        question = self._question(search.snapshot, search.query)
        found = []
        for part, allowed in zip(search.snapshot.parts, search.allowed, strict=True):
            search.check_time()
            terms = part.lexical.lookup(question.terms)
            rows, scores = part.lexical.search(terms, question.weights, *question.parameters, self.k, allowed)
            found.append((part.segment.store.seqs[rows], scores))
        return retrieved(self.stage, found, self.k)

    def _full(self, search: Search) -> Hits:
        index = search.snapshot.fulltext()
        if index is None:
            return retrieved(self.stage, [], self.k)
        return retrieved(self.stage, [index.search(search.query, self.k, search.may_find)], self.k)

    def _score_plain(self, search: Search, seqs: Seqs) -> Scores:
        question = self._question(search.snapshot, search.query)
        scores, (numbers, rows) = np.zeros(len(seqs), np.float32), search.snapshot.locate(seqs)
        for number in np.unique(numbers).tolist():
            search.check_time()
            lexical, inside = search.snapshot.parts[number].lexical, numbers == number
            terms = lexical.lookup(question.terms)
            scores[inside] = lexical.scores(terms, question.weights, *question.parameters, rows[inside])
        return scores

    def _score_full(self, search: Search, seqs: Seqs) -> Scores:
        scores, index = np.zeros(len(seqs), np.float32), search.snapshot.fulltext()
        if index is not None and len(seqs) > 0:
            wanted, place = np.unique(seqs, return_inverse=True)
            found, given = index.search(search.query, len(wanted), lambda some: np.isin(some, wanted))
            of_wanted = np.zeros(len(wanted), np.float32)
            of_wanted[np.searchsorted(wanted, found)] = given
            scores = of_wanted[place]
        return scores

    def _question(self, snapshot: Snapshot, query: str) -> Question:
        counts = Counter(snapshot.analyzer.analyze(query))
        terms = sorted(counts)
        frequencies = snapshot.document_frequencies(terms)
        weights = idf(snapshot.statistics.passages, frequencies) * [counts[term] for term in terms]
        return Question(terms, weights.astype(np.float32), self._parameters(snapshot))

    def _parameters(self, snapshot: Snapshot) -> tuple[float, float, float, float]:
        schema, live = snapshot.schema, snapshot.statistics
        k1 = schema.k1 if self.k1 is None else self.k1
        b = schema.b if self.b is None else self.b
        title_boost = schema.title_boost if self.title_boost is None else self.title_boost
        average = (live.body_terms + title_boost * live.title_terms) / max(1, live.passages)
        return k1, b, title_boost, average


def _terms(lexical: Lexical, question: Question, row: int) -> list[Term]:
    """The terms of the question that a passage has, those that gave most to its score first."""
    given = lexical.explain(lexical.lookup(question.terms), question.weights, *question.parameters, row)
    found: list[Term] = [
        {"term": term, "query": weight, "passage": score / weight, "score": score}
        for term, weight, score in zip(question.terms, question.weights.tolist(), given.tolist(), strict=True)
        if score > 0
    ]
    return sorted(found, key=lambda term: (-term["score"], term["term"]))
