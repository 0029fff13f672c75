"""Passages to documents: one hit for each document, standing on its best passage.

The hit keeps the sequence number and raw scores of the passage it stands on, so the answer can show where in
the document it was found. MaxP and SumP are Dai and Callan's (SIGIR 2019) names for `max` and `sum`.
"""

from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from service.types import Hits, Search, Stage


class Group(Stage):
    """Keep one hit a document."""

    starts: ClassVar[bool] = False

    stage: Literal["group"] = "group"
    method: Literal["max", "sum", "first"] = Field(
        "max",
        description="Score of a document: its best passage's, the sum of its `n` best, or that of the "
        "passage that comes first in it among those found.",
    )
    n: int = Field(3, ge=1, le=1000, description="Passages that `sum` adds up.")

    async def __call__(self, search: Search, hits: Hits) -> Hits:
        """Group; no hits stay no hits."""
        return self.group(hits, search.snapshot.document_keys(hits.seqs))

    def group(self, hits: Hits, documents: NDArray[np.int64]) -> Hits:
        """`documents` [hits] says which document each passage is of; hits come in order, as everywhere."""
        if self.method == "max":
            return hits.take(first_of_each(documents))
        if self.method == "first":
            order = np.argsort(hits.seqs)
            hits, documents = hits.take(order), documents[order]
        _, first, document = np.unique(documents, return_index=True, return_inverse=True)
        scores = hits.scores[first]
        if self.method == "sum":
            counted = _place_in_document(document) < self.n
            totals = np.bincount(document[counted], hits.scores[counted].astype(np.float64), len(first))
            scores = totals.astype(np.float32)
        chosen = hits.take(first)
        return Hits(chosen.seqs, scores, chosen.raw).best(len(first))


def first_of_each(documents: NDArray[np.int64]) -> NDArray[np.intp]:
    """Where each document comes first, ascending."""
    _, first = np.unique(documents, return_index=True)
    return np.sort(first)


def _place_in_document(document: NDArray[np.intp]) -> NDArray[np.intp]:
    """How many passages of the same document come before each, hits being in order."""
    by_document = np.argsort(document, kind="stable")
    begins = np.searchsorted(document[by_document], document[by_document])
    place = np.empty(len(document), np.intp)
    place[by_document] = np.arange(len(document)) - begins
    return place
