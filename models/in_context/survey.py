"""What every head of a net does with a question, and which heads are worth reading.

Retrieval heads look at the documents that answer. A head's score is how much of its attention from the words
of a question lies on the relevant documents, less as much as it gives them for a question without content,
mean over judged questions: the QRScore of Zhang et al. (arXiv 2506.09944) with the calibration of Chen et
al. (ICLR 2025). The heads with the highest are read. Attention is over the candidates' tokens only, so that
what goes to the first tokens of a prompt, whatever is asked, is not counted (Qiu et al., arXiv 2501.08248).
"""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.in_context.attention import Alone, Asked
from models.in_context.read_out import Heads, wide


class Surveyed(Asked):
    """A question and the content-free one behind it, over documents: `found` has [heads, documents] by
    layer.
    """

    def __init__(self, *arguments: object, **options: object) -> None:
        super().__init__(*arguments, **options)  # type: ignore[arg-type]
        self.found: list[Tensor] = []

    def _read(self, q: Tensor, weights: Tensor, scale: float) -> None:
        keys = self._room[0][:, self._first : self._behind]
        asked, free = (by_head(q[:, rows], keys, self._documents.lengths, scale) for rows in self._rows)
        self.found.append(asked - free)


class AloneSurveyed(Alone):
    """Questions alone, whose queries are kept of all layers: `found` has one [heads, t, head_dim] a
    question.
    """

    def __init__(self, *arguments: object) -> None:
        super().__init__(*arguments)  # type: ignore[arg-type]
        self.found: list[Sequence[Tensor]] = []

    def __call__(self, layer: int, q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
        """See Pass."""
        self.found.append(torch.split(wide(q[0]) * scale, self._lengths, dim=1))
        return super().__call__(layer, q, k, v, scale)


def by_head(queries: Tensor, keys: Tensor, lengths: Sequence[int], scale: float) -> Tensor:
    """How much of each head's attention, over all documents' tokens, each document has: [heads, documents].

    queries [heads, signal, head_dim], of which the mean is taken; keys [kv_heads, t, head_dim].
    """
    shared = queries.shape[0] // keys.shape[0]
    logits = wide(torch.matmul(queries, keys.to(queries.dtype).repeat_interleave(shared, 0).transpose(1, 2)))
    attention = (logits * scale).softmax(-1).mean(1)
    return torch.stack([each.sum(1) for each in torch.split(attention, list(lengths), dim=1)], dim=1)


def on_relevant(attention: NDArray[np.float32], relevant: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Attention [layers, heads, documents] that lies on the relevant documents: float32 [layers, heads]."""
    scores: NDArray[np.float32] = attention[:, :, relevant].sum(axis=2)
    return scores


def best_layer(scores: NDArray[np.float32], heads: int) -> int:
    """The layer whose best `heads` heads have the highest scores [layers, heads] together, 1 at the least."""
    best = np.sort(scores, axis=1)[:, -heads:].sum(axis=1)
    return 1 + int(best[1:].argmax())


def best_heads(scores: NDArray[np.float32], last: int, number: int) -> Heads:
    """The heads of layers up to `last` with the highest scores [layers, heads], of equal weight."""
    order = np.argsort(-scores[: last + 1].ravel(), kind="stable")[:number].tolist()
    chosen = sorted(divmod(place, scores.shape[1]) for place in order)
    return Heads(tuple((layer, head, 1.0) for layer, head in chosen))
