"""Lexical retrieval: BM25 over live statistics, or tantivy's query language.

Plain words are analysed as documents were, count as often as they are said and never fail to parse. Document
frequencies and lengths are those of what is alive in the whole snapshot, so neither the number of segments
nor deletions that wait for a merge change a score. Robertson and Zaragoza, "The Probabilistic Relevance
Framework: BM25 and Beyond", 2009, with Lucene's idf.

Where the collection says so, documents are scored whole: a long one that answers a question in several places
need not do so in any one passage. There is then one hit a document, with the score of the document; it stands
on the passage that scores most by the same words, so that there is something to show.

`query_syntax: "full"` (phrases, boolean, prefix, fuzzy, fields) finds passages and is scored by tantivy with
its own statistics.
"""

import json
from collections import Counter
from typing import Annotated, ClassVar, Literal, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from indexer.segment.lexical import Lexical, idf
from indexer.segment.manifest import CollectionSchema, Component, Statistics
from service.errors import ComponentError
from service.limits import Limit
from service.snapshot import Part, Unit
from service.stages.lookup import scored, siblings
from service.stages.retrieved import retrieved
from service.types import Hits, Scores, Search, Seqs, Stage, Term

_OWN = "The collection's by default; of no effect on `full` syntax."


class Question(NamedTuple):
    """A question's terms, each once, their weights (frequency in it times idf), and the parameters."""

    unit: Unit
    terms: list[str]
    weights: NDArray[np.float32]
    parameters: tuple[float, float, float, float]  # k1, b, title_boost, average length


class Bm25(Stage):
    """Find passages, or documents, by their words."""

    starts: ClassVar[bool] = True
    needs: ClassVar[Component | None] = "bm25"
    floor: ClassVar[float | None] = 0.0
    scores_any: ClassVar[bool] = True

    stage: Literal["bm25"] = "bm25"
    k: Annotated[int, Field(ge=1), Limit("candidates")] = Field(1000, description="Hits found.")
    unit: Unit | None = Field(
        None,
        description="What is scored: passages, or whole documents, each of which is then one hit on its best "
        "passage. The collection's `lexical_unit` by default; `full` syntax always scores passages.",
    )
    query_syntax: Literal["plain", "full"] = Field(
        "plain", description="`full`: phrases, AND, OR, NOT, prefixes and fields, scored by tantivy."
    )
    k1: float | None = Field(None, ge=0, le=10, description=_OWN)
    b: float | None = Field(None, ge=0, le=1, description=_OWN)
    title_boost: float | None = Field(None, ge=0, le=100, description=_OWN)

    @model_validator(mode="after")
    def _full_syntax_is_of_passages(self) -> Self:
        if self.unit == "document" and self.query_syntax == "full":
            raise ValueError('full syntax finds passages: leave out unit "document", or use plain words')
        return self

    async def __call__(self, search: Search, hits: Hits) -> Hits:
        """Search every part of the snapshot in one thread. ComponentError as `unit_of` says."""
        if self.query_syntax == "full":
            return await search.in_thread(self._full, search)
        return await search.in_thread(self._plain, search, self.unit_of(search.snapshot.schema))

    async def score(self, search: Search, seqs: Seqs) -> Scores:
        """float32 [seqs]: what each of these passages scores, or its document; 0 where nothing matches.

        The same numbers that a search gives. ComponentError as `unit_of` says.
        """
        if self.query_syntax == "full":
            return await search.in_thread(self._score_full, search, seqs)
        unit = self.unit_of(search.snapshot.schema)
        return await search.in_thread(self._score_plain, search, seqs, unit)

    def explain(self, search: Search, seqs: Seqs) -> list[list[Term]]:
        """What each matching term gave to the score of each passage, or of its document, most first."""
        if self.query_syntax == "full":
            return [[] for _ in seqs]
        question = self._question(search, self.unit_of(search.snapshot.schema))
        parts, rows = search.snapshot.locate(seqs)
        found = []
        for number, row in zip(parts.tolist(), rows, strict=True):
            part = search.snapshot.parts[number]
            place = int(_rows_of(part, question.unit, row))
            found.append(_terms(part.lexical_of(question.unit), question, place))
        return found

    def unit_of(self, schema: CollectionSchema) -> Unit:
        """What is scored in such a collection. ComponentError if it was made without whole documents."""
        if self.query_syntax == "full":
            return "passage"
        if self.unit == "document" and schema.lexical_unit != "document":
            wanted = json.dumps({"lexical_unit": "document"})
            raise ComponentError(
                f"stage {self.stage!r} is to score whole documents, and this collection was made with "
                f'lexical_unit "passage": leave out unit "document", or make a collection with '
                f"PUT /v1/collections/NAME {wanted} and index it again"
            )
        return self.unit or schema.lexical_unit

    def _plain(self, search: Search, unit: Unit) -> Hits:
        question, found = self._question(search, unit), []
        for part, allowed in zip(search.snapshot.parts, search.allowed, strict=True):
            search.check_time()
            lexical, mask = part.lexical_of(unit), part.mask_of(unit, allowed)
            terms = lexical.lookup(question.terms)
            rows, scores = lexical.search(terms, question.weights, *question.parameters, self.k, mask)
            found.append((_seqs_of(part, unit, rows), scores))
        hits = retrieved(self.stage, found, self.k)
        return hits if unit == "passage" else self._on_best_passages(search, hits)

    def _on_best_passages(self, search: Search, hits: Hits) -> Hits:
        """Hits of documents, each moved to that passage of it which scores most; of equal ones the first.

        Order stays: numbers of documents ascend as those of their passages do.
        """
        order = np.argsort(hits.seqs)  # so that postings are read in order
        seqs, owners = siblings(search, hits.seqs[order])
        several = np.bincount(owners)[owners] > 1
        scores = np.zeros(len(seqs), np.float32)
        scores[several] = self._score_plain(search, seqs[several], "passage")
        ranking = np.lexsort((seqs, -scores, owners))
        best = np.empty_like(hits.seqs)
        best[order] = seqs[ranking[np.searchsorted(owners, np.arange(len(hits)))]]
        return Hits(best, hits.scores, hits.raw)

    def _score_plain(self, search: Search, seqs: Seqs, unit: Unit) -> Scores:
        question = self._question(search, unit)

        def score(part: Part, rows: NDArray[np.int64]) -> Scores:
            lexical = part.lexical_of(unit)
            terms = lexical.lookup(question.terms)
            places = _rows_of(part, unit, rows)
            return lexical.scores(terms, question.weights, *question.parameters, places)

        return scored(search, seqs, score)

    def _full(self, search: Search) -> Hits:
        index = search.snapshot.fulltext()
        if index is None:
            return retrieved(self.stage, [], self.k)
        return retrieved(self.stage, [index.search(search.query, self.k, search.may_find)], self.k)

    def _score_full(self, search: Search, seqs: Seqs) -> Scores:
        wanted, place = np.unique(seqs, return_inverse=True)
        scores, index = np.zeros(len(wanted), np.float32), search.snapshot.fulltext()
        if index is not None and len(wanted) > 0:
            found, given = index.search(search.query, len(wanted), lambda some: np.isin(some, wanted))
            scores[np.searchsorted(wanted, found)] = given
        return scores[place]

    def _question(self, search: Search, unit: Unit) -> Question:
        snapshot = search.snapshot
        counts = Counter(snapshot.analyzer.analyze(search.query))
        terms, (number, body, title) = sorted(counts), _live(snapshot.statistics, unit)
        weights = idf(number, snapshot.document_frequencies(terms, unit)) * [counts[term] for term in terms]
        k1, b, title_boost = self._parameters(snapshot.schema)
        average = (body + title_boost * title) / max(1, number)
        return Question(unit, terms, weights.astype(np.float32), (k1, b, title_boost, average))

    def _parameters(self, schema: CollectionSchema) -> tuple[float, float, float]:
        k1 = schema.k1 if self.k1 is None else self.k1
        b = schema.b if self.b is None else self.b
        title_boost = schema.title_boost if self.title_boost is None else self.title_boost
        return k1, b, title_boost


def _live(live: Statistics, unit: Unit) -> tuple[int, int, int]:
    """How many there are of what is scored, and how many terms their bodies and titles have."""
    if unit == "passage":
        return live.passages, live.body_terms, live.title_terms
    return live.documents, live.document_body_terms, live.document_title_terms


def _rows_of(part: Part, unit: Unit, rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """The rows of `part.lexical_of(unit)` that passages are counted in."""
    return rows if unit == "passage" else part.segment.store.document_of_row[rows].astype(np.int64)


def _seqs_of(part: Part, unit: Unit, rows: NDArray[np.int64]) -> Seqs:
    """Passage numbers of rows of `part.lexical_of(unit)`; of a document, that of its first."""
    store = part.segment.store
    return store.seqs[rows if unit == "passage" else store.first_row[rows]]


def _terms(lexical: Lexical, question: Question, row: int) -> list[Term]:
    """The terms of the question that a row has, those that gave most to its score first."""
    given = lexical.explain(lexical.lookup(question.terms), question.weights, *question.parameters, row)
    found: list[Term] = [
        {"term": term, "query": weight, "passage": score / weight, "score": score}
        for term, weight, score in zip(question.terms, question.weights.tolist(), given.tolist(), strict=True)
        if score > 0
    ]
    return sorted(found, key=lambda term: (-term["score"], term["term"]))
