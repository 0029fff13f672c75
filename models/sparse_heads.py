"""From what a net says at every position to one weight per vocabulary entry: pure functions of tensors.

`H` are logits [texts, positions, vocabulary]; `voting`, bool [texts, positions], says which positions count.
Padding and special tokens do not vote: their logits are multiplied by zero before pooling, which leaves
nothing of them, since every activation is zero at zero and never below. Logarithms are natural.
"""

from collections.abc import Callable
from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import linear

Activation = Literal["log1p", "log1p_log1p", "relu"]
Pooling = Literal["max", "sum", "last"]

CELLS = 1 << 20
"""Logits that exist at a time. A batch of passages takes half the time of one large product, whose logits
leave the caches before they are pooled; those of a question fit in one stretch."""


class Projection(NamedTuple):
    """From states to logits: `weight` [vocabulary, hidden] and `bias` [vocabulary] or None."""

    weight: Tensor
    bias: Tensor | None

    def __call__(self, states: Tensor, stretch: slice = slice(None)) -> Tensor:
        """Logits [..., entries] of these vocabulary entries for states [..., hidden]."""
        bias = None if self.bias is None else self.bias[stretch]
        return linear(states, self.weight[stretch], bias)


def activate(logits: Tensor, activation: Activation) -> Tensor:
    """Weights float32 of logits: `relu`, `log1p(relu)` (SPLADE) or `log1p(log1p(relu))` (Shen et al. 2025,
    arXiv 2504.14839); which one is part of what a model is.
    """
    positive = logits.float().relu()
    if activation == "relu":
        return positive
    once = positive.log1p()
    return once if activation == "log1p" else once.log1p()


def pool(logits: Tensor, voting: Tensor, pooling: Pooling, activation: Activation) -> Tensor:
    """Weights float32 [texts, vocabulary] of logits [texts, positions, vocabulary].

    "max" is `max_i f(H_ij)` (Formal et al. 2021, arXiv 2109.10086), taken before f, which never falls;
    "sum" is `Σ_i f(H_ij)` (its first version, arXiv 2107.05720); "last" is `f(H_lj)` at the last position
    that votes.
    """
    if pooling == "last":
        return activate(at_last(logits, voting), activation)
    counted = logits * voting[:, :, None]
    if pooling == "max":
        return activate(counted.amax(1), activation)
    return activate(counted, activation).sum(1)


def pool_projected(
    states: Tensor,
    voting: Tensor,
    projection: Projection,
    pooling: Pooling,
    activation: Activation,
) -> Tensor:
    """`pool(projection(states), …)` without ever holding all logits.

    `states` are [texts, positions, hidden]; weights float32 [texts, vocabulary].
    """
    if pooling == "sum":
        return by_stretch(states, projection, lambda logits: pool(logits, voting, "sum", activation))
    if pooling == "last":
        logits = projection(at_last(states, voting))
    else:
        logits = by_stretch(voters(states, voting), projection, lambda logits: logits.amax(1))
    return activate(logits * voting.any(1, keepdim=True), activation)


def voters(states: Tensor, voting: Tensor) -> Tensor:
    """States of the positions that vote, [texts, most votes, hidden], filled up by repeating a text's first.

    A repetition changes no maximum, so nothing need be masked, and what has no vote is not projected at all.
    """
    votes = voting.sum(1, keepdim=True)
    rank = torch.arange(max(1, int(votes.amax())), device=states.device)
    order = torch.argsort(~voting, dim=1, stable=True)[:, : len(rank)]
    chosen = torch.where(rank < votes, order, order[:, :1])
    return states.gather(1, chosen[:, :, None].expand(-1, -1, states.shape[2]))


def by_stretch(states: Tensor, projection: Projection, reduce: Callable[[Tensor], Tensor]) -> Tensor:
    """`reduce(projection(states))`, [texts, vocabulary], for a stretch of the vocabulary at a time."""
    texts, positions, _ = states.shape
    step = max(1, CELLS // (texts * positions))
    begins = range(0, len(projection.weight), step)
    return torch.cat([reduce(projection(states, slice(begin, begin + step))) for begin in begins], 1)


def at_last(values: Tensor, voting: Tensor) -> Tensor:
    """`values` [texts, positions, n] at the last position that votes, [texts, n]; zeros where none does."""
    positions = torch.arange(voting.shape[1], device=voting.device)
    last = (voting * positions).amax(1)
    return values[torch.arange(len(values), device=values.device), last] * voting.any(1, keepdim=True)


def own_terms(ids: Tensor, weights: Tensor, voting: Tensor, vocabulary: int) -> Tensor:
    """Weights of the terms of a text itself: `max_{i: t_i = j} w_i`, float32 [texts, vocabulary].

    `ids` and `weights` are [texts, positions]; weights are not below zero. Terms that come twice weigh as
    much as the heavier of the two: a sum would be a term frequency (Nguyen et al. 2023, arXiv 2303.13416).
    """
    found = weights.new_zeros(len(ids), vocabulary)
    return found.scatter_reduce(1, ids, weights * voting, "amax")


def literal_residual(base: Tensor, compensation: Tensor, literal: Tensor) -> Tensor:
    """`W = w + I ⊙ (max_j w'_j − w'_j)`: terms of the text itself gain what they lack (PROSPER).

    All three are [texts, vocabulary]: `base` w, `compensation` w' (its maximum is over the whole vocabulary),
    `literal` I, bool. Song et al. 2025, arXiv 2510.18527.
    """
    return base + literal * (compensation.amax(1, keepdim=True) - compensation)
