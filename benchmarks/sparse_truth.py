"""What a search should have found, and how much of it an answer holds.

Scores are a float64 product by scipy of the weights as they were encoded, computed once and kept beside the
data: nothing under test takes part. A hit counts when its exact score reaches the exact k-th, but for a
millionth, so that of passages with equal scores any will do.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from benchmarks.sparse_vectors import Dataset
from models.csr import Csr

DEPTH = 1000
TOLERANCE = 1e-6
BATCH = 16  # questions whose scores of all passages are held at once

Rows = NDArray[np.int64]
Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Truth:
    """The best passages of every question, best first; where fewer score above 0, -1 and 0."""

    rows: NDArray[np.int32]  # [questions, depth]
    scores: NDArray[np.float64]  # [questions, depth]

    def recall(
        self, data: Dataset, questions: Sequence[int], answers: Sequence[NDArray[np.int64]], k: int
    ) -> float:
        """Mean share of the best k found among the first k of each answer; questions without any count 1."""
        shares = []
        for question, answer in zip(questions, answers, strict=True):
            wanted = min(k, int(np.count_nonzero(self.scores[question, :k] > 0)))
            least = self.scores[question, max(wanted, 1) - 1] * (1 - TOLERANCE)
            scores = exact_scores(data, question, np.unique(answer[:k]))
            shares.append(min(1.0, np.count_nonzero(scores >= least) / wanted) if wanted else 1.0)
        return float(np.mean(shares))


def exact_scores(data: Dataset, question: int, rows: Rows) -> NDArray[np.float64]:
    """Of one question with some passages, in float64."""
    terms, weights = data.questions.row(question)
    wanted = np.zeros(data.vocabulary)
    wanted[terms] = weights
    lengths = data.passages.offsets[rows + 1] - data.passages.offsets[rows]
    begins = np.cumsum(lengths) - lengths
    places = np.repeat(data.passages.offsets[rows] - begins, lengths) + np.arange(lengths.sum())
    products = wanted[data.passages.terms[places]] * data.passages.weights[places]
    return np.bincount(np.repeat(np.arange(len(rows)), lengths), products, len(rows))


def truths(
    data: Dataset, masks: Mapping[str, Mask | None], directory: Path, depth: int = DEPTH
) -> dict[str, Truth]:
    """By name of a mask, over the passages it allows: read if they were kept, else computed in one pass."""
    paths = {name: directory / f"{data.name}.truth-{name}.npz" for name in masks}
    missing = {name: mask for name, mask in masks.items() if not paths[name].is_file()}
    if missing:
        for name, truth in _compute(data, missing, depth).items():
            np.savez(paths[name], rows=truth.rows, scores=truth.scores)
    return {name: _read(path) for name, path in paths.items()}


def _read(path: Path) -> Truth:
    with np.load(path) as kept:
        return Truth(kept["rows"], kept["scores"])


def _compute(data: Dataset, masks: Mapping[str, Mask | None], depth: int) -> dict[str, Truth]:
    by_term = _matrix(data.passages, data.vocabulary).T.tocsr()
    asked = _matrix(data.questions, data.vocabulary)
    shape = (asked.shape[0], depth)
    found = {name: Truth(np.full(shape, -1, np.int32), np.zeros(shape)) for name in masks}
    for begin in range(0, len(data.questions), BATCH):
        for offset, scores in enumerate((asked[begin : begin + BATCH] @ by_term).toarray()):
            for name, mask in masks.items():
                rows = _best(scores if mask is None else np.where(mask, scores, 0.0), depth)
                found[name].rows[begin + offset, : len(rows)] = rows
                found[name].scores[begin + offset, : len(rows)] = scores[rows]
    return found


def _best(scores: NDArray[np.float64], depth: int) -> NDArray[np.intp]:
    """Rows of the best positive scores, best first, equal ones by row."""
    positive = np.count_nonzero(scores > 0)
    count = min(depth, positive)
    if count == 0:
        return np.empty(0, np.intp)
    least = np.partition(scores, len(scores) - count)[len(scores) - count]
    candidates = np.flatnonzero(scores >= least)
    return candidates[np.lexsort((candidates, -scores[candidates]))][:count]


def _matrix(vectors: Csr, vocabulary: int) -> csr_matrix:
    parts = (vectors.weights.astype(np.float64), vectors.terms, vectors.offsets)
    return csr_matrix(parts, shape=(len(vectors), vocabulary))
