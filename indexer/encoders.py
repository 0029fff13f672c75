"""The nets a worker needs, loaded when a collection first asks for them and then kept.

A worker whose collections have no dense component never loads one, and never imports what loads it.
"""

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray


class Encoder(Protocol):
    """What the indexer asks of `models.dense.DenseEncoder`."""

    @property
    def fingerprint(self) -> str:
        """Differs between any two encoders whose vectors differ."""
        ...

    @property
    def max_tokens(self) -> int:
        """How many word pieces it reads of a text, special ones included."""
        ...

    def offsets(self, texts: Sequence[str]) -> list[NDArray[np.int64]]:
        """Return int64[m, 2], the characters of each word piece, of each whole text."""
        ...

    def tokenize(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the word pieces it reads of each text, special ones and its own prompt included."""
        ...

    def encode(
        self, texts: Sequence[str], *, progress: Callable[[int], None] | None = ...
    ) -> NDArray[np.float32]:
        """Return float32[n, dim]; `progress` hears of every few texts how many they are."""
        ...


LoadEncoder = Callable[[str], Encoder]


class WrongEncoder(Exception):  # noqa: N818 (it says a state)
    """The encoder of this name is not the one that made the collection's vectors."""


class Encoders:
    """Encoders by name, each loaded once."""

    def __init__(self, load: LoadEncoder) -> None:
        self._load = load
        self._loaded: dict[str, Encoder] = {}

    def get(self, name: str, fingerprint: str | None) -> Encoder:
        """Return the encoder `name`; WrongEncoder unless it has this fingerprint, if one is given."""
        if name not in self._loaded:
            self._loaded[name] = self._load(name)
        encoder = self._loaded[name]
        if fingerprint not in (None, encoder.fingerprint):
            raise WrongEncoder(
                f"the vectors of this collection were made by another version of {name} (fingerprint "
                f"{fingerprint}; {encoder.fingerprint} is installed): install that version again, or index "
                "the documents into a new collection"
            )
        return encoder
