"""MaxSim with gradients: all questions of a step against all its passages."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence


def maxsim(questions: Sequence[Tensor], passages: Sequence[Tensor]) -> Tensor:
    """Scores float [questions, passages]: the mean over a question's vectors of the largest product.

    A question is float [rows, dim], a passage too; each has at least one row. A mean and not a sum, so that
    one temperature suits questions of every length (Khattab & Zaharia 2020, arXiv 2004.12832, eq. 3, summed).
    """
    padded = pad_sequence(list(passages), batch_first=True)
    lengths = torch.tensor([len(each) for each in passages], device=padded.device)
    real = torch.arange(padded.shape[1], device=padded.device) < lengths[:, None]
    products = torch.cat(list(questions)) @ padded.flatten(0, 1).T
    # Padding has products of 0, which would be better than a negative one.
    similar = products.view(-1, *real.shape).masked_fill(~real, float("-inf"))
    best = similar.max(2).values
    sizes = torch.tensor([len(each) for each in questions], device=best.device)
    owners = torch.arange(len(questions), device=best.device).repeat_interleave(sizes)
    sums = best.new_zeros(len(questions), len(passages)).index_add(0, owners, best)
    return sums / sizes[:, None]
