"""Lists for approximate search, given to a large segment if they prove themselves.

How much lists miss depends on the weights more than on their number: where a few common terms carry much of
every score, as small nets have it, lists would have to keep nearly everything. So each new segment asks
itself questions, the heaviest terms of some of its own passages, by the usual plan and exactly, and keeps
lists that find 99 in 100. Over real and synthetic encodings such questions told the recall of real ones to
within 0.05 (docs/decisions/0008).
"""

import logging
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from indexer.kernels.forward import HEAD
from indexer.segment.plan import TYPICAL_HITS, USUAL, Plan
from indexer.segment.seismic import SEISMIC, write_seismic
from indexer.segment.sparse import Question, Sparse, question

logger = logging.getLogger(__name__)

LARGE = 100_000
"""Rows from which approximate search can be faster than exact search."""

EXACT, LISTS = USUAL._replace(strategy="exact"), USUAL._replace(strategy="approximate")

QUESTIONS = 200
ENOUGH = 0.99


def add_lists(path: Path) -> None:
    """Write lists beside the sparse vectors in `path`, unless they are few or lists would miss too much."""
    sparse = Sparse(path)
    if sparse.rows < LARGE:
        return
    lists = path.with_name(SEISMIC)
    write_seismic(lists, sparse.forward, sparse.starts, sparse.postings)
    found = recall(Sparse(path))
    if found < ENOUGH:
        lists.unlink()
        logger.info("approximate search would find %.3f of the best hits: all searches will be exact", found)


def recall(sparse: Sparse) -> float:
    """Share of the best hits of a segment's own questions that lists find; equal scores are equal hits."""
    random = np.random.default_rng(sparse.rows)
    rows = random.choice(sparse.rows, min(QUESTIONS, sparse.rows), replace=False)
    return float(np.mean([_found(sparse, row) for row in rows.tolist()]))


def _found(sparse: Sparse, row: int) -> float:
    """The share for one passage's question. The passage itself does not count: nothing could miss it."""
    _, terms, weights = sparse.vectors(np.array([row], np.int64))
    order = np.argsort(terms[:HEAD])
    asked = question(terms[:HEAD][order], weights[:HEAD][order], sparse.step)
    exact, listed = (_others(sparse, asked, row, plan) for plan in (EXACT, LISTS))
    return int((listed >= exact[-1]).sum()) / len(exact) if len(exact) else 1.0


def _others(sparse: Sparse, asked: Question, row: int, plan: Plan) -> NDArray[np.float32]:
    rows, scores = sparse.search(asked, TYPICAL_HITS + 1, plan=plan)
    others: NDArray[np.float32] = scores[rows != row][:TYPICAL_HITS]
    return others
