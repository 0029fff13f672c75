"""Encoded passages and questions, as the sparse benchmark keeps them on disk."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from models.csr import Csr


@dataclass(frozen=True)
class Dataset:
    """Passages to search and questions to ask; every other question is there to choose settings by."""

    name: str
    passages: Csr
    questions: Csr
    vocabulary: int

    @property
    def train(self) -> NDArray[np.int64]:
        """Numbers of the questions by which settings are chosen."""
        return np.arange(0, len(self.questions), 2)

    @property
    def held_out(self) -> NDArray[np.int64]:
        """Numbers of the questions that are reported."""
        return np.arange(1, len(self.questions), 2)

    def save(self, path: Path) -> None:
        """Write what `read` takes."""
        np.savez(
            path,
            doff=self.passages.offsets,
            dc=self.passages.terms,
            dv=self.passages.weights,
            qoff=self.questions.offsets,
            qc=self.questions.terms,
            qv=self.questions.weights,
            V=self.vocabulary,
        )


def read(path: Path) -> Dataset:
    """What `Dataset.save` wrote, named like the file."""
    with np.load(path) as kept:
        passages = Csr(kept["doff"], kept["dc"], kept["dv"])
        questions = Csr(kept["qoff"], kept["qc"], kept["qv"])
        return Dataset(path.stem, passages, questions, int(kept["V"]))
