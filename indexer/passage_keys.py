"""Passages to the keys that are stored of them: read by a language model, and how much room that takes.

A passage is read with its document's whole title and exactly as the store has it, since a service that reads
a stored passage again must get the same tokens. Keys are made of some hundred passages at a time and written
as they come, since those of one batch of documents in float32 would be gigabytes.
"""

from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from indexer.encoders import KeysEncoder
from indexer.segment.keys import bytes_of

BLOCK = 128
"""Passages read together: enough to batch by length, some tens of megabytes of keys."""

Pair = tuple[str, str]
"""A passage's title and text."""

SAMPLES: tuple[Pair, ...] = (
    (
        "The tides",
        "The moon pulls the sea, and the sea rises twice a day. Sailors know when the water is high and wait "
        "for it in the harbour.",
    ),
    (
        "Notes on a machine",
        'It has 16 keys, 2 lamps and a lever; pressing the third key (marked "+") adds what stands in the '
        "first row to the second, and a bell rings.",
    ),
    (
        "",
        "In 1851 the committee reported that prices had risen by 7.5% since the law was passed; the "
        "minister, Mr. Brown, did not agree with its findings.",
    ),
    (
        "def area(width, height):",
        "return width * height  # in square metres; raises ValueError if either is negative",
    ),
    (
        "Zellen",
        "Die Zelle ist die kleinste Einheit des Lebens. Ihre Membran trennt sie von der Umgebung und lässt "
        "nur manche Stoffe hinein.",
    ),
)
"""Passages of several kinds whose keys have in common what a net's keys have in common."""

_CENTRES: dict[str, NDArray[np.float32]] = {}  # by fingerprint of the net


class Lengths(NamedTuple):
    """How many tokens of each passage are read, and how many passages are longer than that."""

    tokens: list[int]
    cut: int


def key_lengths(passages: Sequence[Pair], encoder: KeysEncoder) -> Lengths:
    """Count tokens. No net runs for it."""
    cuts = [cut for some in _blocks(passages) for cut in encoder.document_tokens(some)]
    return Lengths([len(cut.ids) for cut in cuts], sum(cut.lost > 0 for cut in cuts))


def key_centre(encoder: KeysEncoder) -> NDArray[np.float32]:
    """Mean of the keys of `SAMPLES`, float32 [kv_heads, head_dim], which codes are made without.

    It depends on the net alone, so keys get the same codes in whichever segment they are. Of SmolLM2 on four
    collections, Kendall's tau of scores by int8 keys and by those in float32 is .989 to .992 so, and .979 to
    .987 of codes around 0.
    """
    if encoder.fingerprint not in _CENTRES:
        keys = np.concatenate(encoder.encode_keys(SAMPLES))
        _CENTRES[encoder.fingerprint] = keys.mean(axis=0, dtype=np.float64).astype(np.float32)
    return _CENTRES[encoder.fingerprint]


def key_bytes(lengths: Lengths, encoder: KeysEncoder) -> int:
    """How much the keys of passages take in a segment."""
    return bytes_of(sum(lengths.tokens), len(lengths.tokens), encoder.kv_heads, encoder.head_dim)


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
