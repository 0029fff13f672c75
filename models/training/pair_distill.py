"""Which of two documents is better, taught pair by pair: what a softmax over many documents hardly says.

PairDistill (Huang & Chen 2024, arXiv 2410.01383): besides the distribution over all documents a student
learns how sure a teacher is of the order of two that it ranks near one another. A pairwise teacher is asked
in both orders, and the mean of P(i, j) and 1 - P(j, i) is taken; of teachers that score documents one by one
P(i, j) = sigmoid(T_i - T_j), which is the same in both orders.
"""

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits


def near_pairs(teacher: Tensor, window: int) -> Tensor:
    """Documents at most `window` ranks apart: int64 [pairs, 2], the better one first, of float [documents].

    Equal scores rank in the given order.
    """
    order = teacher.argsort(descending=True, stable=True)
    better, worse = torch.triu_indices(len(order), len(order), 1, device=order.device)
    near = worse - better <= window
    return torch.stack([order[better[near]], order[worse[near]]], dim=1)


def preferred(teacher: Tensor, pairs: Tensor) -> Tensor:
    """P(i, j) of pairs int64 [pairs, 2] by scores of one teacher, float [documents]: float [pairs]."""
    first, second = pairs.T
    return torch.sigmoid(teacher[first] - teacher[second])


def pair_distill(student: Tensor, pairs: Tensor, probabilities: Tensor) -> Tensor:
    """Mean over pairs of `KL([P, 1 - P] || softmax([s_i, s_j]))`, a scalar; 0 without pairs.

    `student` float [documents] are scores divided by their temperature, `probabilities` float [pairs] are P,
    not their logarithms as they are published. Equation 5 of the paper.
    """
    if not len(pairs):
        return student.sum() * 0.0
    first, second = pairs.T
    crossed = binary_cross_entropy_with_logits(student[first] - student[second], probabilities)
    certain = torch.special.entr(probabilities) + torch.special.entr(1 - probabilities)
    loss: Tensor = crossed - certain.mean()
    return loss
