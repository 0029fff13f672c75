"""Document vectors remembered between evaluations, so that only the first run over a collection is slow.

A vector is kept under the fingerprint of its model and the hash of its text, so it is found again however the
documents are cut into batches, and never for another model. Queries are not kept: their latency is measured.
"""

import os
from collections.abc import Callable, Sequence
from hashlib import blake2b
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from indexer.encoders import Encoder
from service.commands.common import CommandError

KEY_BYTES = 16


def cache_home() -> Path:
    """Return `~/.cache/winnow`, or what XDG_CACHE_HOME puts in its place."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "winnow"


class CachedEncoder:
    """An encoder for documents that asks `inner` only for texts it has not seen; `save` keeps them."""

    def __init__(self, inner: Encoder, directory: Path, dataset: str) -> None:
        self.inner = inner
        self.path = directory / inner.fingerprint / f"{dataset}.safetensors"
        self._vectors = _load(self.path)
        self._grown = False

    @property
    def fingerprint(self) -> str:
        """The inner encoder's."""
        return self.inner.fingerprint

    @property
    def max_tokens(self) -> int:
        """The inner encoder's."""
        return self.inner.max_tokens

    def offsets(self, texts: Sequence[str]) -> list[NDArray[np.int64]]:
        """Return the inner encoder's."""
        return self.inner.offsets(texts)

    def tokenize(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the inner encoder's."""
        return self.inner.tokenize(texts)

    def encode(
        self, texts: Sequence[str], *, progress: Callable[[int], None] | None = None
    ) -> NDArray[np.float32]:
        """Return float32[n, dim] in the order of `texts`; `progress` hears of every few how many they are."""
        keys = [blake2b(text.encode(), digest_size=KEY_BYTES).digest() for text in texts]
        missing = {key: text for key, text in zip(keys, texts, strict=True) if key not in self._vectors}
        if progress is not None:
            progress(len(texts) - len(missing))
        if missing:
            made = self.inner.encode(list(missing.values()), progress=progress)
            self._vectors.update(zip(missing, made, strict=True))
            self._grown = True
        return np.stack([self._vectors[key] for key in keys])

    def save(self) -> None:
        """Write what is new, in one rename."""
        if not self._grown:
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        fresh = self.path.with_suffix(f".{os.getpid()}")
        keys = np.frombuffer(b"".join(self._vectors), np.uint8).reshape(-1, KEY_BYTES)
        save_file({"keys": keys, "vectors": np.stack(list(self._vectors.values()))}, fresh)
        fresh.replace(self.path)


def _load(path: Path) -> dict[bytes, NDArray[np.float32]]:
    if not path.is_file():
        return {}
    try:
        arrays = load_file(path)
    except SafetensorError as error:
        raise CommandError(f"{path} is damaged ({error}); delete it, and it will be made again") from error
    return {key.tobytes(): vector for key, vector in zip(arrays["keys"], arrays["vectors"], strict=True)}
