"""What every net does with a tokeniser: copies that never change under another thread, padding, offsets."""

from collections.abc import Sequence
from itertools import chain

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer


def copied(backend: Tokenizer, most: int | None = None) -> Tokenizer:
    """A copy of `backend` without padding that cuts to `most` tokens, or never.

    `transformers` switches truncation and padding on the shared one at every call, which fails ("Already
    borrowed") as soon as two threads tokenise.
    """
    copy = Tokenizer.from_str(backend.to_str())
    copy.no_padding()
    if most is None:
        copy.no_truncation()
    else:
        copy.enable_truncation(most)
    return copy


def padded(tokens: Sequence[Sequence[int]], pad: int) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """A batch as a matrix: ids int64 [texts, longest], filled up with `pad`, and which of them are real."""
    lengths = np.fromiter(map(len, tokens), np.int64, len(tokens))
    real = np.arange(lengths.max()) < lengths[:, None]
    ids = np.full(real.shape, pad, np.int64)
    ids[real] = np.fromiter(chain.from_iterable(tokens), np.int64, int(lengths.sum()))
    return ids, real


def spans(whole: Tokenizer, texts: Sequence[str]) -> list[NDArray[np.int64]]:
    """Character (start, end) of every word piece of each text: int64 [pieces, 2], special tokens left out."""
    encodings = whole.encode_batch(list(texts), add_special_tokens=False)
    return [np.array(encoding.offsets, np.int64).reshape(-1, 2) for encoding in encodings]


def decoded(whole: Tokenizer, ids: Sequence[int], name: str) -> str:
    """What these entries of the vocabulary say, special ones left out. ValueError for an unknown one."""
    largest = whole.get_vocab_size() - 1
    if strange := [each for each in ids if not 0 <= each <= largest]:
        raise ValueError(f"{strange[0]} is no token of {name}, whose tokens are 0 to {largest}")
    return whole.decode(list(ids))
