"""Texts to the token vectors that are stored of them: encoded, and those that say the same made one.

Texts are encoded a few hundred at a time and quantised as they come, since the token vectors of one batch of
documents in float32 would be gigabytes.
"""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from indexer.encoders import LateEncoder
from indexer.segment.codec import Codebook, train_codebook
from indexer.segment.late import Tokens
from indexer.segment.manifest import CollectionSchema
from models.late_words import word_labels
from models.pooling import clusters, hierarchical, pool

BLOCK = 256
"""Texts encoded together: enough to batch by length, some hundred megabytes of vectors at most."""

_CODEBOOKS: dict[str, Codebook] = {}  # by fingerprint of the encoder; each takes seconds to make


def token_rows(
    texts: Sequence[str], schema: CollectionSchema, encoder: LateEncoder, report: Callable[[int], None]
) -> Iterator[Tokens]:
    """Give what is stored of each text, in order; `report` hears of every few texts how many they are."""
    for begin in range(0, len(texts), BLOCK):
        block = texts[begin : begin + BLOCK]
        encoded = encoder.encode(block, progress=report)
        for text, vectors, (ids, spans) in zip(block, encoded, encoder.pieces(block), strict=True):
            labels = _labels(schema, text, vectors, spans)
            kept = Tokens(vectors if labels is None else pool(vectors, labels), ids, labels)
            gates = encoder.gates(kept.vectors)
            yield kept if gates is None else gated(kept, gates)


def gated(tokens: Tokens, gates: NDArray[np.float32]) -> Tokens:
    """Multiply vectors by numbers float32 [m]; those of 0 are left out, with the tokens they stand for."""
    stays, labels = gates > 0, tokens.labels
    if labels is None:
        labels = np.arange(len(gates), dtype=np.int32)
    numbers = (np.cumsum(stays) - 1).astype(np.int32)
    vectors = (tokens.vectors * gates[:, None])[stays]
    return Tokens(vectors, tokens.ids[stays[labels]], numbers[labels[stays[labels]]])


def codebook(schema: CollectionSchema, encoder: LateEncoder) -> Codebook | None:
    """Make what `residual4` codes refer to, None for `int8`.

    It depends on the encoder alone: on its vectors of texts made of its own vocabulary. So vectors get the
    same codes in whichever segment they are, and segments can be merged without decoding.
    """
    if schema.late_precision == "int8":
        return None
    if encoder.fingerprint not in _CODEBOOKS:
        samples = encoder.encode(encoder.sample_texts())
        _CODEBOOKS[encoder.fingerprint] = train_codebook(np.concatenate(samples))
    return _CODEBOOKS[encoder.fingerprint]


def _labels(
    schema: CollectionSchema, text: str, vectors: NDArray[np.float32], spans: NDArray[np.int64]
) -> NDArray[np.int32] | None:
    """Say which vectors become one, by equal numbers; None where each stays."""
    match schema.late_pooling:
        case "hierarchical":
            return hierarchical(vectors, schema.late_pool)
        case "words":
            return word_labels(text, spans)
        case "clusters":
            return clusters(vectors, schema.late_pool)
    return None
