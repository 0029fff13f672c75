"""A question and documents' keys of layer l*: mode `keys`, of documents that were read and not looked up.

An index keeps such keys in 8 bits, and meets them without this net; here they are in its own format.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from models.in_context.items import KeyQuestion
from models.in_context.states import Source, States


def keys_of(documents: Source, layer: int, like: States) -> NDArray[np.float32]:
    """What documents have of a layer, one behind the other: float32 [kv_heads, sum(lengths), head_dim].

    `like` has the number format and the device of the net.
    """
    of_any = like.keys[layer]
    room = of_any.new_empty(of_any.shape[0], sum(documents.lengths), of_any.shape[2])
    documents.fill(layer, room, None)
    keys: NDArray[np.float32] = room.float().cpu().numpy()
    return keys


def met(asked: KeyQuestion, keys: NDArray[np.float32], lengths: Sequence[int]) -> NDArray[np.float32]:
    """What each document has of the question's attention to the tokens of all: float32 [documents].

    keys float32 [kv_heads, sum(lengths), head_dim], no length 0. Each row of the question has a softmax over
    all tokens, and scores are sums of these with the rows' weights.
    """
    begins = np.cumsum([0, *lengths[:-1]])
    scores = np.zeros(len(lengths))
    for head in np.unique(asked.kv_heads):
        rows = asked.kv_heads == head
        logits = asked.vectors[rows] @ keys[head].T
        odds = np.exp(logits - logits.max(axis=1, keepdims=True))
        parts = np.add.reduceat(odds, begins, axis=1, dtype=np.float64)
        scores += asked.weights[rows] @ (parts / parts.sum(axis=1, keepdims=True))
    return scores.astype(np.float32)
