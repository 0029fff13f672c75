"""Passages to the keys that are stored of them: read by a language model, and how much room that takes.

A passage is read with its document's whole title and exactly as the store has it, since a service that reads
a stored passage again must get the same tokens. Keys are made of some hundred passages at a time and written
as they come, since those of one batch of documents in float32 would be gigabytes.
"""

from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from indexer.encoders import KeysEncoder
from indexer.segment.keys import bytes_of

BLOCK = 128
"""Passages read together: enough to batch by length, some tens of megabytes of keys."""

Pair = tuple[str, str]
"""A passage's title and text."""


def key_lengths(passages: Sequence[Pair], encoder: KeysEncoder) -> list[int]:
    """How many tokens of each passage are read. No net runs for it."""
    return [len(cut.ids) for some in _blocks(passages) for cut in encoder.document_tokens(some)]


def key_bytes(lengths: Sequence[int], encoder: KeysEncoder) -> int:
    """How much the keys of passages of so many tokens take in a segment."""
    return bytes_of(sum(lengths), len(lengths), encoder.kv_heads, encoder.head_dim)


def key_rows_of(
    passages: Sequence[Pair], encoder: KeysEncoder, report: Callable[[int], None]
) -> Iterator[NDArray[np.float32]]:
    """Give the keys of each passage, float32 [tokens, kv_heads, head_dim], in order.

    `report` hears of every few passages how many they are.
    """
    for some in _blocks(passages):
        yield from encoder.encode_keys(some, progress=report)


def _blocks(passages: Sequence[Pair]) -> Iterator[Sequence[Pair]]:
    edges = [*range(0, len(passages), BLOCK), len(passages)]
    return (passages[begin:end] for begin, end in pairwise(edges))
