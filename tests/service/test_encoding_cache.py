"""The cache on an encoder that counts what it is asked for."""

from pathlib import Path

import numpy as np
import pytest

from service.commands.common import CommandError
from service.commands.encoding_cache import CachedEncoder
from tests.nets import WordOverlapEncoder


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
    cached = CachedEncoder(inner, tmp_path, "set")
    first = cached.encode(["tide", "moon", "tide"])
    assert inner.seen == ["tide", "moon"]
    assert np.array_equal(first, WordOverlapEncoder().encode(["tide", "moon", "tide"]))
    cached.save()

    again = Counting()
    reopened = CachedEncoder(again, tmp_path, "set")
    heard: list[int] = []
    second = reopened.encode(["sea", "moon", "tide"], progress=heard.append)
    assert again.seen == ["sea"]
    assert sum(heard) == 3
    assert np.array_equal(second[1:], first[[1, 0]])


def test_another_model_has_another_file(tmp_path: Path):
    class Other(Counting):
        fingerprint = "other"

    assert CachedEncoder(Counting(), tmp_path, "set").path != CachedEncoder(Other(), tmp_path, "set").path


def test_a_damaged_file_is_named(tmp_path: Path):
    cached = CachedEncoder(Counting(), tmp_path, "set")
    cached.encode(["tide"])
    cached.save()
    cached.path.write_bytes(b"\0" * 64)
    with pytest.raises(CommandError, match=r"set\.safetensors is damaged"):
        CachedEncoder(Counting(), tmp_path, "set")
