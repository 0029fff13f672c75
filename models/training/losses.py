"""Losses that recipes share: pure functions of tensors."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

SCALE = 30.0
"""What normalised teachers are multiplied by: a softmax over numbers from 0 to 1 is nearly flat."""


def flops(weights: Tensor) -> Tensor:
    """FLOPS of sparse vectors [..., group, vocabulary]: `sum_j (mean_i |w_ij|)^2`, a scalar.

    A term that is in many vectors costs more than several that are in few, as posting lists do (Formal et
    al. 2021, arXiv 2107.05720, eq. 4). Of [questions, group, vocabulary] the mean is over questions, and the
    loss the sum over positions in the group: documents of one question are alike, and would else be
    penalised for it. [texts, vocabulary] is one group.
    """
    return weights.abs().mean(0).square().sum()


def l1(weights: Tensor) -> Tensor:
    """Mean over texts of the sum of weights: a scalar, of [texts, vocabulary]."""
    return weights.abs().sum(-1).mean()


def warmed(weight: float, step: int, over: int) -> float:
    """A regulariser's weight at a step: `weight * min(1, step / over)^2` (arXiv 2107.05720, section 3.3)."""
    return weight if over <= 0 else weight * min(1.0, step / over) ** 2


def ensemble(scores: Mapping[str, Sequence[float]], teachers: Sequence[str], scale: float = SCALE) -> Tensor:
    """What teachers think of a question's documents together: float32 [documents], from 0 to `scale`.

    Each teacher's scores are brought to 0..1 over these documents, and the mean of teachers is scaled (Geng
    et al. 2024, arXiv 2411.04403, section 4.2).
    """
    table = torch.tensor([scores[teacher] for teacher in teachers], dtype=torch.float32)
    low, high = table.amin(1, keepdim=True), table.amax(1, keepdim=True)
    return scale * ((table - low) / (high - low + 1e-6)).mean(0)


def distil(teacher: Tensor, student: Tensor) -> Tensor:
    """Mean over questions of `KL(softmax(teacher) || softmax(student))`, both [questions, documents].

    A document that is -inf for either is none of the question's.
    """
    told = teacher.masked_fill(student.isneginf(), float("-inf")).softmax(-1)
    logs = student.log_softmax(-1)
    terms = torch.where(told > 0, told * (told.clamp_min(1e-30).log() - logs), 0.0)
    return terms.sum(-1).mean()


def info_nce(scores: Tensor, targets: Tensor) -> Tensor:
    """Mean of `-log softmax(scores)[target]`: scores [questions, documents], targets int64 [questions]."""
    return cross_entropy(scores, targets)
