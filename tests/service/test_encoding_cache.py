"""The cache on an encoder that counts what it is asked for."""

from pathlib import Path

import numpy as np
import pytest

from service.commands.common import CommandError
from service.commands.encoding_cache import CachedDense, CachedSparse, cached
from tests.nets import WordOverlapEncoder, WordOverlapSparseEncoder


class Counting(WordOverlapEncoder):
    """Remembers every text it encoded."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def encode(self, texts, *args, **kwargs):
        self.seen.extend(texts)
        return super().encode(texts, *args, **kwargs)


def test_a_text_is_encoded_once(tmp_path: Path):
    inner = Counting()
    known = cached("dense", inner, tmp_path, "set")
    first = known.encode(["tide", "moon", "tide"])
    assert inner.seen == ["tide", "moon"]
    assert np.array_equal(first, WordOverlapEncoder().encode(["tide", "moon", "tide"]))
    known.save()

    again = Counting()
    reopened = CachedDense(again, tmp_path, "set")
    heard: list[int] = []
    second = reopened.encode(["sea", "moon", "tide"], progress=heard.append)
    assert again.seen == ["sea"]
    assert sum(heard) == 3
    assert np.array_equal(second[1:], first[[1, 0]])


def test_another_model_has_another_file(tmp_path: Path):
    class Other(Counting):
        fingerprint = "other"

    assert CachedDense(Counting(), tmp_path, "set").path != CachedDense(Other(), tmp_path, "set").path


def test_a_damaged_file_is_named(tmp_path: Path):
    known = CachedDense(Counting(), tmp_path, "set")
    known.encode(["tide"])
    known.save()
    known.path.write_bytes(b"\0" * 64)
    with pytest.raises(CommandError, match=r"set\.safetensors is damaged"):
        CachedDense(Counting(), tmp_path, "set")


class CountingSparse(WordOverlapSparseEncoder):
    """Remembers every text it encoded."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def encode(self, texts, *args, **kwargs):
        self.seen.extend(texts)
        return super().encode(texts, *args, **kwargs)


def test_sparse_vectors_are_remembered_too(tmp_path: Path):
    inner, texts = CountingSparse(), ["the tide", "moon", "", "the tide"]
    known = cached("sparse", inner, tmp_path, "set")
    first = known.encode(texts)
    assert inner.seen == texts[:3]
    known.save()

    again = CountingSparse()
    reopened = CachedSparse(again, tmp_path, "set")
    assert (reopened.vocabulary, reopened.ceiling) == (inner.vocabulary, inner.ceiling)
    second, plain = reopened.encode(texts), WordOverlapSparseEncoder().encode(texts)
    assert again.seen == []
    for vectors in (first, second):
        for name in ("offsets", "terms", "weights"):
            assert np.array_equal(getattr(vectors, name), getattr(plain, name))
    assert len(reopened.encode([])) == 0
