"""Document vectors remembered between evaluations, so that only the first run over a collection is slow.

A vector is kept under the fingerprint of its model and the hash of its text, so it is found again however the
documents are cut into batches, and never for another model. Queries are not kept: their latency is measured.
"""

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from indexer.encoders import DenseEncoder, SparseEncoder
from models.csr import Csr, concatenate
from models.roles import Loaded, Role
from service.commands.common import CommandError

KEY_BYTES = 16

Arrays = dict[str, NDArray[Any]]


def cache_home() -> Path:
    """Return `~/.cache/winnow`, or what XDG_CACHE_HOME puts in its place."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "winnow"


def cached(role: Role, encoder: Loaded, directory: Path, dataset: str) -> "Cached":
    """An encoder of this role that remembers what it encoded of a data set."""
    if role == "sparse":
        return CachedSparse(cast(SparseEncoder, encoder), directory, dataset)
    return CachedDense(cast(DenseEncoder, encoder), directory, dataset)


class Cached(ABC):
    """An encoder for documents that asks `inner` only for texts it has not seen; `save` keeps them.

    A subclass says how one encoding, whatever it is, comes of its rows and is kept as arrays.
    """

    def __init__(self, inner: DenseEncoder | SparseEncoder, directory: Path, dataset: str) -> None:
        self.fingerprint, self.max_tokens = inner.fingerprint, inner.max_tokens
        self.offsets, self.tokenize = inner.offsets, inner.tokenize
        self.path = directory / inner.fingerprint / f"{dataset}.safetensors"
        self._inner = inner
        self._rows = self._load()
        self._grown = False

    def encode(self, texts: Sequence[str], *, progress: Callable[[int], None] | None = None) -> Any:
        """Return the rows in the order of `texts`; `progress` hears of every few how many they are."""
        keys = [blake2b(text.encode(), digest_size=KEY_BYTES).digest() for text in texts]
        missing = {key: text for key, text in zip(keys, texts, strict=True) if key not in self._rows}
        if progress is not None:
            progress(len(texts) - len(missing))
        if missing:
            made = self._inner.encode(list(missing.values()), progress=progress)
            self._rows.update(zip(missing, made, strict=True))
            self._grown = True
        return self._join([self._rows[key] for key in keys])

    def save(self) -> None:
        """Write what is new, in one rename."""
        if not self._grown:
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        fresh = self.path.with_suffix(f".{os.getpid()}")
        keys = np.frombuffer(b"".join(self._rows), np.uint8).reshape(-1, KEY_BYTES)
        save_file({"keys": keys, **self._arrays(self._join(list(self._rows.values())))}, fresh)
        fresh.replace(self.path)

    def _load(self) -> dict[bytes, Any]:
        if not self.path.is_file():
            return {}
        try:
            arrays = load_file(self.path)
        except SafetensorError as error:
            raise CommandError(
                f"{self.path} is damaged ({error}); delete it, and it will be made again"
            ) from error
        keys = (key.tobytes() for key in arrays["keys"])
        return dict(zip(keys, self._read(arrays), strict=True))

    @abstractmethod
    def _join(self, rows: Sequence[Any]) -> Any:
        """Make one encoding of rows."""

    @abstractmethod
    def _arrays(self, encoding: Any) -> Arrays:
        """Name the arrays of an encoding."""

    @abstractmethod
    def _read(self, arrays: Arrays) -> Iterable[Any]:
        """Give the rows of an encoding that was kept."""


class CachedDense(Cached):
    """Encodings are float32[n, dim]. Chunks of whole documents are not remembered."""

    def __init__(self, inner: DenseEncoder, directory: Path, dataset: str) -> None:
        super().__init__(inner, directory, dataset)
        self.supports_late_chunking, self.encode_chunks = inner.supports_late_chunking, inner.encode_chunks

    def _join(self, rows: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
        return np.stack(rows)

    def _arrays(self, encoding: NDArray[np.float32]) -> Arrays:
        return {"vectors": encoding}

    def _read(self, arrays: Arrays) -> Iterable[NDArray[np.float32]]:
        return arrays["vectors"]


class CachedSparse(Cached):
    """Encodings are `Csr`."""

    def __init__(self, inner: SparseEncoder, directory: Path, dataset: str) -> None:
        super().__init__(inner, directory, dataset)
        self.vocabulary, self.ceiling, self.pieces = inner.vocabulary, inner.ceiling, inner.pieces

    def _join(self, rows: Sequence[tuple[NDArray[np.int32], NDArray[np.float32]]]) -> Csr:
        return concatenate([Csr(np.array([0, len(terms)]), terms, weights) for terms, weights in rows])

    def _arrays(self, encoding: Csr) -> Arrays:
        return {"offsets": encoding.offsets, "terms": encoding.terms, "weights": encoding.weights}

    def _read(self, arrays: Arrays) -> Iterable[tuple[NDArray[np.int32], NDArray[np.float32]]]:
        return Csr(arrays["offsets"], arrays["terms"], arrays["weights"])
