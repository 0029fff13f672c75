"""Our own sparse index under the benchmark: written, closed, opened again and mapped, asked like a rival."""

import hashlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import indexer
from benchmarks.sparse_vectors import Dataset
from indexer.segment.lists import add_lists
from indexer.segment.segment import SPARSE
from indexer.segment.seismic import SEISMIC, write_seismic
from indexer.segment.sparse import Plan, Sparse, question, write_sparse

CEILING = 8.0  # of log1p weights
SOURCES = ("segment/*.py", "kernels/*.py")
EXACT = Plan(strategy="exact")


def build_winnow(data: Dataset, folder: Path) -> None:
    """Into a folder, as a segment's: with lists for approximate search if they prove themselves."""
    write_sparse(folder / SPARSE, data.passages, CEILING, data.vocabulary)
    add_lists(folder / SPARSE)


def build_winnow_lists(data: Dataset, folder: Path) -> None:
    """Likewise, with lists whatever they miss."""
    write_sparse(folder / SPARSE, data.passages, CEILING, data.vocabulary)
    sparse = open_winnow(folder)
    write_seismic(folder / SEISMIC, sparse.forward, sparse.starts, sparse.postings)


def open_winnow(folder: Path) -> Sparse:
    """Map what was built."""
    return Sparse(folder / SPARSE)


def fingerprint() -> str:
    """Of the code that decides an index, so that none of an older one is taken for it."""
    root = Path(indexer.__file__).parent
    files = sorted(file for pattern in SOURCES for file in root.glob(pattern))
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:12]


class Winnow:
    """Search by one plan among some of the passages (None: all)."""

    def __init__(
        self, index: Sparse, data: Dataset, plan: Plan, allowed: NDArray[np.bool_] | None = None
    ) -> None:
        self.index, self.plan, self.allowed = index, plan, allowed
        self.questions = list(data.questions)

    def search(self, number: int, k: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Rows and scores; rounding the question's weights is counted."""
        asked = question(*self.questions[number], self.index.step)
        return self.index.search(asked, k, self.allowed, self.plan)

    def rows(self, answer: tuple[NDArray[np.int64], NDArray[np.float32]]) -> NDArray[np.int64]:
        """The first half."""
        return answer[0]
