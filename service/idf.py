"""Tables of idf weights that settings name, for questions that no net weighs.

A table belongs to an encoder's vocabulary. Its fingerprint is written down when a collection is made with it:
scores by another table look as plausible and mean something else. A table is read once; one that was replaced
is seen at the next start.
"""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from indexer.segment.manifest import OWN_IDF, CollectionSchema
from models.idf import read_idf
from service.errors import EncoderError, InvalidError

IDF = "idf"
"""Under this word a table's fingerprint stands in a manifest."""

Weights = NDArray[np.float32]


class Vocabulary(Protocol):
    """What a table asks of an encoder."""

    @property
    def name(self) -> str:
        """What it is called."""
        ...

    @property
    def ids(self) -> Mapping[str, int]:
        """Its pieces and their numbers."""
        ...

    @property
    def vocabulary(self) -> int:
        """How many vocabulary entries there are."""
        ...

    @property
    def idf(self) -> Weights | None:
        """The table that came with it, float32[vocabulary]."""
        ...


class IdfTables:
    """Tables by name, each read once for an encoder. For any thread."""

    def __init__(self, paths: Mapping[str, Path]) -> None:
        self._paths = paths
        self._read: dict[tuple[str, str], tuple[str, Weights]] = {}

    def fingerprints(self, schema: CollectionSchema) -> dict[str, str]:
        """What a collection that is made now must find again. InvalidError for a table that is not there."""
        if schema.sparse_idf in (None, OWN_IDF):
            return {}
        try:
            return {IDF: _fingerprint(self._path(str(schema.sparse_idf)))}
        except EncoderError as error:
            raise InvalidError(error.detail) from error

    def get(self, name: str, fingerprint: str | None, encoder: Vocabulary) -> Weights:
        """float32[vocabulary]. EncoderError if it cannot be had, or is not `fingerprint`."""
        if name == OWN_IDF:
            return _own(encoder)
        if (name, encoder.name) not in self._read:
            self._read[name, encoder.name] = self._load(name, encoder)
        found, weights = self._read[name, encoder.name]
        if fingerprint not in (None, found):
            raise EncoderError(
                f"the collection was made with the idf table {name!r} of fingerprint {fingerprint}, and its "
                f"file is now {found}: put the old file back, or index the documents into a new collection"
            )
        return weights

    def _load(self, name: str, encoder: Vocabulary) -> tuple[str, Weights]:
        path = self._path(name)
        try:
            return _fingerprint(path), read_idf(path, encoder.ids, encoder.vocabulary)
        except (OSError, ValueError) as error:
            raise EncoderError(f"the idf table {name!r} cannot be used: {error}") from error

    def _path(self, name: str) -> Path:
        if name not in self._paths:
            known = ", ".join(sorted(self._paths)) or "none"
            raise EncoderError(
                f"there is no idf table {name[:100]!r} (there is {known}): whoever runs the service can name "
                "one in WINNOW_IDF_TABLES"
            )
        return self._paths[name]


def _own(encoder: Vocabulary) -> Weights:
    if encoder.idf is None:
        raise EncoderError(
            f"the encoder {encoder.name} came without idf weights: in a new collection, name another table "
            "in sparse_idf, or set sparse_query to encoder or idf"
        )
    return encoder.idf


def _fingerprint(path: Path) -> str:
    """Sha256 of the file's bytes, 16 hex digits. EncoderError if it cannot be read."""
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()[:16]
    except OSError as error:
        raise EncoderError(f"an idf table cannot be read: {error}") from error
