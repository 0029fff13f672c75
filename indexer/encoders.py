"""The nets a worker needs, loaded when a collection first asks for them and then kept.

A worker whose collections have words only never loads one, and never imports what loads it.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, cast

import numpy as np
from numpy.typing import NDArray

from indexer.segment.manifest import CollectionSchema
from models.csr import Csr
from models.roles import Load, Loaded, Role


class Encoder(Loaded, Protocol):
    """What cutting passages asks of any encoder: how it reads a text."""

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


class DenseEncoder(Encoder, Protocol):
    """What the indexer asks of `models.dense.DenseEncoder`."""

    def encode(
        self, texts: Sequence[str], *, progress: Callable[[int], None] | None = ...
    ) -> NDArray[np.float32]:
        """Return float32[n, dim]; `progress` hears of every few texts how many they are."""
        ...

    @property
    def supports_late_chunking(self) -> bool:
        """Whether parts of a text can have vectors that know all of it."""
        ...

    def encode_chunks(
        self,
        texts: Sequence[str],
        chunks: Sequence[Sequence[tuple[int, int]]],
        *,
        progress: Callable[[int], None] | None = ...,
    ) -> list[NDArray[np.float32]]:
        """Return float32[chunks, dim] for each text, of which chunks are spans of characters."""
        ...


class SparseEncoder(Encoder, Protocol):
    """What the indexer asks of `models.sparse.SparseEncoder`."""

    @property
    def vocabulary(self) -> int:
        """How many vocabulary entries there are."""
        ...

    @property
    def ceiling(self) -> float:
        """No weight is above it."""
        ...

    def encode(self, texts: Sequence[str], *, progress: Callable[[int], None] | None = ...) -> Csr:
        """Return a row of weights for each text; `progress` hears of every few texts how many they are."""
        ...

    def pieces(self, texts: Sequence[str]) -> list[NDArray[np.int32]]:
        """Return the different word pieces of each text, ascending."""
        ...


class LateEncoder(Encoder, Protocol):
    """What the indexer asks of `models.late.LateEncoder`."""

    @property
    def dim(self) -> int:
        """How long its vectors are."""
        ...

    def encode(
        self, texts: Sequence[str], *, progress: Callable[[int], None] | None = ...
    ) -> list[NDArray[np.float32]]:
        """Return float32[rows, dim] for each text; `progress` hears of every few texts how many they are."""
        ...

    def sample_texts(self) -> list[str]:
        """Return texts that a codebook of its vectors can be made from; always the same."""
        ...

    def pieces(self, texts: Sequence[str]) -> Sequence[tuple[NDArray[np.int32], NDArray[np.int64]]]:
        """Return for each text which vocabulary entry a row stands for, and which of its characters."""
        ...

    def gates(self, vectors: NDArray[np.float32]) -> NDArray[np.float32] | None:
        """Return by what vectors that would be kept are multiplied, 0 for those that are not, if it says."""
        ...


class KeysEncoder(Loaded, Protocol):
    """What the indexer asks of `models.in_context.net.InContextNet`.

    It reads the title and the text of a passage as they are and cuts both by limits of its own, so it has no
    part in how documents are cut into passages.
    """

    @property
    def kv_heads(self) -> int:
        """How many keys a token has."""
        ...

    @property
    def head_dim(self) -> int:
        """How long a key is."""
        ...

    def document_tokens(self, documents: Sequence[tuple[str, str]]) -> Sequence["CutDocument"]:
        """Return what it reads of each title and text."""
        ...

    def encode_keys(
        self, documents: Sequence[tuple[str, str]], *, progress: Callable[[int], None] | None = ...
    ) -> list[NDArray[np.float32]]:
        """Return float32[tokens, kv_heads, head_dim] for each title and text, tokens as `document_tokens`."""
        ...


class CutDocument(Protocol):
    """Tokens of a title and a text, as many of them as are read."""

    @property
    def ids(self) -> Sequence[int]:
        """The tokens."""
        ...

    @property
    def lost(self) -> int:
        """How many more there were."""
        ...


class Scorer(Loaded, Protocol):
    """What the indexer asks of the scorers in `models.quality`."""

    def scores(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return the quality of each text, float32[n]."""
        ...


class WrongEncoder(Exception):  # noqa: N818 (it says a state)
    """The encoder of this name is not the one that made the collection's vectors."""


@dataclass(frozen=True)
class CollectionEncoders:
    """The nets that make a collection's passages; None where its schema asks for none."""

    dense: DenseEncoder | None = None
    sparse: SparseEncoder | None = None
    late: LateEncoder | None = None
    in_context: KeysEncoder | None = None
    quality: Scorer | None = None

    def encoders(self) -> list[Encoder]:
        """Those that say how long a passage may be: all but the one that reads in context."""
        nets: tuple[Encoder | None, ...] = (self.dense, self.sparse, self.late)
        return [encoder for encoder in nets if encoder is not None]

    def fingerprints(self) -> dict[str, str]:
        """Role -> fingerprint."""
        nets = {
            "dense": self.dense,
            "sparse": self.sparse,
            "late": self.late,
            "in_context": self.in_context,
            "quality": self.quality,
        }
        return {role: net.fingerprint for role, net in nets.items() if net is not None}


class Encoders:
    """Nets by name, each loaded once."""

    def __init__(self, load: Load) -> None:
        self._load = load
        self._loaded: dict[tuple[Role, str], Loaded] = {}

    def of(self, schema: CollectionSchema, fingerprints: Mapping[str, str]) -> CollectionEncoders:
        """Return the nets of a collection; WrongEncoder unless they have these fingerprints, if given."""
        names = schema.encoders()
        judged = "sparse" in names

        def get(role: Role, name: str | None) -> Loaded | None:
            return None if name is None else self._get(role, name, fingerprints.get(role))

        dense = cast(DenseEncoder | None, get("dense", names.get("dense")))
        if dense is not None and schema.chunking == "late" and not dense.supports_late_chunking:
            raise WrongEncoder(
                f"{schema.encoder} does not take the mean of its token states, which late chunking needs: "
                'make the collection with another encoder, or with "chunking": "separate"'
            )
        return CollectionEncoders(
            dense,
            cast(SparseEncoder | None, get("sparse", names.get("sparse"))),
            cast(LateEncoder | None, get("late", names.get("late"))),
            cast(KeysEncoder | None, get("in_context", names.get("in_context"))),
            cast(Scorer | None, get("quality", schema.sparse_quality if judged else None)),
        )

    def _get(self, role: Role, name: str, fingerprint: str | None) -> Loaded:
        if (role, name) not in self._loaded:
            self._loaded[role, name] = self._load(role, name)
        net = self._loaded[role, name]
        if fingerprint not in (None, net.fingerprint):
            raise WrongEncoder(
                f"the {role} part of this collection was made by another version of {name} (fingerprint "
                f"{fingerprint}; {net.fingerprint} is installed): install that version again, or index "
                "the documents into a new collection"
            )
        return net
