"""A sparse encoder as a batcher wants it: texts to vectors, one an element."""

from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from models import Kind
from models.csr import Csr
from models.roles import Loaded
from service.batch_queue import Array


class SparseEncoder(Loaded, Protocol):
    """What the service asks of `models.sparse.SparseEncoder`."""

    name: str
    max_tokens: int
    vocabulary: int
    ids: Mapping[str, int]
    idf: NDArray[np.float32] | None

    def tokenize(self, texts: Sequence[str], kind: Kind) -> list[list[int]]:
        """Token ids of each text; never an empty list."""
        ...

    def forward(self, tokens: Sequence[Sequence[int]]) -> Csr:
        """One row per text, in order."""
        ...

    def finish(self, vectors: Csr, kind: Kind) -> Csr:
        """What is done to rows after a forward."""
        ...

    def encode(self, texts: Sequence[str], kind: Kind) -> Csr:
        """All of it: one finished row per text, in order."""
        ...

    def pieces(self, texts: Sequence[str]) -> list[NDArray[np.int32]]:
        """The different word pieces of each text, ascending."""
        ...

    def words(self, terms: NDArray[np.int32]) -> list[str]:
        """Vocabulary entries as a reader knows them."""
        ...


class SparseNet:
    """A sparse encoder as a batcher wants it: a forward gives an array of vectors, one an element."""

    def __init__(self, encoder: SparseEncoder) -> None:
        self.max_tokens = encoder.max_tokens
        self.tokenize = encoder.tokenize
        self._encoder = encoder

    def forward(self, tokens: Sequence[Sequence[int]]) -> Array:
        """object[n] of `Csr` of one row each."""
        vectors = self._encoder.forward(tokens)
        rows = np.empty(len(vectors), np.object_)
        for number in range(len(vectors)):
            rows[number] = vectors.take([number])
        return rows
