"""Neighbouring passages that say the same thing share a vector (sequential coalescing).

Leonhardt et al., "Efficient Neural Ranking using Forward Indexes", WWW 2022. The passages of a document are
gone through in order; one whose cosine distance to the mean of the group so far is at least `delta` begins
the next. Only vectors become fewer: passages keep their rows, and with these their own spans, so what is
highlighted and shown does not change.
"""

import numpy as np
from numpy.typing import NDArray

Vectors = NDArray[np.float32]
Sum = NDArray[np.float64]


def coalesce(
    vectors: Vectors, document_of_row: NDArray[np.uint32], delta: float
) -> tuple[Vectors, NDArray[np.uint32]]:
    """The vectors of the groups, float32 [groups, dim], and which of them each row has, uint32 [rows].

    `vectors` [rows, dim] are the passages' in document order, and no group is of two documents. A group of
    one keeps its vector to the bit; the mean of several is brought to length 1, as the passages' vectors are,
    unless they cancel out. 0 changes nothing, more than 2, which no distance exceeds, leaves one vector a
    document. A vector of zeros is at distance 1 from everything.
    """
    sums: list[Sum] = []
    vector_of_row = np.empty(len(vectors), np.uint32)
    for row, vector in enumerate(vectors.astype(np.float64)):
        begins = row == 0 or document_of_row[row] != document_of_row[row - 1]
        if begins or _distance(vector, sums[-1]) >= delta:
            sums.append(vector)
        else:
            sums[-1] = sums[-1] + vector  # of the direction of the mean, which is all that is asked of it
        vector_of_row[row] = len(sums) - 1
    return _joined(vectors, vector_of_row, sums), vector_of_row


def _distance(one: Sum, other: Sum) -> float:
    """1 - cosine, in [0, 2] also where rounding would leave it."""
    length = float(np.linalg.norm(one)) * float(np.linalg.norm(other))
    return 1 - max(-1.0, min(1.0, float(one @ other) / length)) if length else 1.0


def _joined(vectors: Vectors, vector_of_row: NDArray[np.uint32], sums: list[Sum]) -> Vectors:
    first, sizes = np.unique(vector_of_row, return_index=True, return_counts=True)[1:]
    joined = vectors[first]
    for group in np.flatnonzero(sizes > 1).tolist():
        joined[group] = sums[group] / (np.linalg.norm(sums[group]) or 1.0)
    return joined
