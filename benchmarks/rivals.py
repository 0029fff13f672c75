"""Other searches over learned sparse vectors, each as its users would call it for one question at a time.

kannolo scans or walks a graph, in Rust; scipy and numpy are what one writes without a library. The one to
beat is in `rival_seismic`. What an engine wants of a question beside its arrays is made before anything is
timed, and its answers become row numbers after it.
"""

from importlib.util import find_spec
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from benchmarks.sparse_vectors import Dataset

Rows = NDArray[np.int64]
REQUIRED = {"seismic": "pyseismic-lsr==0.5.4", "kannolo": "kannolo==0.15.1", "scipy": "scipy"}


class Engine(Protocol):
    """An index with the questions of a data set ready to be asked."""

    def search(self, question: int, k: int) -> Any:
        """What is timed: one question by its number."""

    def rows(self, answer: Any) -> Rows:
        """Of what `search` gave, best first."""


def check_installed() -> None:
    """Raise ImportError with the command that installs what is missing."""
    missing = [package for module, package in REQUIRED.items() if find_spec(module) is None]
    if missing:
        command = f"pip install {' '.join(missing)}"
        raise ImportError(f"the benchmark compares with packages that are not here: {command}")


class KannoloFlat:
    """kannolo's exhaustive scan; weights are kept in 16 bits."""

    def __init__(self, data: Dataset) -> None:
        from kannolo import SparseFlatIndex

        self.data = data
        passages = data.passages
        self.index = SparseFlatIndex.build_from_arrays(passages.terms, passages.weights, passages.offsets)

    def search(self, question: int, k: int) -> Any:
        """Scores and rows."""
        return self.index.search(*self.data.questions.row(question), k)

    def rows(self, answer: Any) -> Rows:
        """Rows of `search`'s answer."""
        return np.asarray(answer[1], np.int64)


class KannoloGraph:
    """kannolo's HNSW over sparse vectors, built in minutes."""

    def __init__(self, data: Dataset, width: int = 100) -> None:
        from kannolo import SparsePlainHNSW

        self.data, self.width = data, width
        passages = data.passages
        self.index = SparsePlainHNSW.build_from_arrays(passages.terms, passages.weights, passages.offsets)

    def search(self, question: int, k: int) -> Any:
        """Scores and rows."""
        return self.index.search(*self.data.questions.row(question), k, ef_search=max(self.width, k))

    def rows(self, answer: Any) -> Rows:
        """Rows of `search`'s answer."""
        return np.asarray(answer[1], np.int64)


class ScipyProduct:
    """All passages times the question, float32, and the best of the products."""

    def __init__(self, data: Dataset) -> None:
        self.data = data
        self.matrix = _matrix(data)

    def search(self, question: int, k: int) -> Rows:
        """Rows, best first."""
        terms, weights = self.data.questions.row(question)
        asked = np.zeros(self.data.vocabulary, np.float32)
        asked[terms] = weights
        return best(self.matrix @ asked, k)

    def rows(self, answer: Rows) -> Rows:
        """As they are."""
        return answer


class NumpyGather:
    """Term at a time over lists of postings: a slice added per term of the question."""

    def __init__(self, data: Dataset) -> None:
        self.data = data
        self.lists = _matrix(data).tocsc()

    def search(self, question: int, k: int) -> Rows:
        """Rows, best first."""
        lists = self.lists
        scores = np.zeros(lists.shape[0], np.float32)
        for term, weight in zip(*self.data.questions.row(question), strict=True):
            part = slice(lists.indptr[term], lists.indptr[term + 1])
            scores[lists.indices[part]] += weight * lists.data[part]
        return best(scores, k)

    def rows(self, answer: Rows) -> Rows:
        """As they are."""
        return answer


def best(scores: NDArray[np.float32], k: int) -> Rows:
    """Rows of the k largest scores, best first."""
    k = min(k, len(scores))
    rows = np.argpartition(scores, len(scores) - k)[len(scores) - k :]
    return rows[np.argsort(-scores[rows], kind="stable")]


def _matrix(data: Dataset) -> csr_matrix:
    parts = (data.passages.weights, data.passages.terms, data.passages.offsets)
    return csr_matrix(parts, shape=(len(data.passages), data.vocabulary))
