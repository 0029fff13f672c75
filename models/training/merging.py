"""Token vectors of a passage that become one, inside the forward: what an index will keep is what is trained.

Vectors learn to be averaged if they are averaged while they learn. The groups are those that an index makes
(`models.pooling`, `models.late_words`), found anew for the vectors of every step and then taken as given, so
that gradients flow through the means:

- `clusters`: k-means of each passage's vectors, as many as are wanted (CRISP: Veneroso et al. 2025, arXiv
  2505.11471, the fixed form, passages only, as questions are not pooled here);
- `hierarchical`: Ward clusters, one `pool`-th of the passage's vectors (the relative form);
- `words`: all occurrences of a whole word (ColBERTer: Hofstätter et al. 2022, arXiv 2203.13088, BOW²).
"""

from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.late_heads import unit
from models.late_words import word_labels
from models.pooling import clusters, hierarchical

Merging = Literal["words", "hierarchical", "clusters"]


def labels(
    merging: Merging, pool: int, text: str, spans: NDArray[np.int64], vectors: Tensor
) -> NDArray[np.int32]:
    """Which vectors of a text become one, int32 [rows]: as a collection with such `late_pooling` has it.

    `spans` int64 [rows, 2] are characters of the text, `vectors` float [rows, dim] of unit length; `pool` is
    the collection's `late_pool`.
    """
    if merging == "words":
        return word_labels(text, spans)
    rows = vectors.detach().float().cpu().numpy()
    return hierarchical(rows, pool) if merging == "hierarchical" else clusters(rows, pool)


def means(vectors: Tensor, groups: Tensor) -> Tensor:
    """The mean of every group, float [groups, dim], of vectors [rows, dim] and labels int64 [rows].

    Labels are numbers from 0 without gaps. A vector moves the mean of its group by one over the group's size.
    """
    count = int(groups.max()) + 1
    sums = vectors.new_zeros(count, vectors.shape[1]).index_add(0, groups, vectors)
    sizes = torch.bincount(groups, minlength=count)
    return sums / sizes[:, None]


def merged(vectors: Tensor, groups: Tensor) -> Tensor:
    """What an index keeps of a text: the means, made unit vectors again (see `models.pooling.pool`)."""
    return unit(means(vectors, groups))
