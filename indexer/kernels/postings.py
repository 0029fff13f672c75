"""Moving postings from the segments being merged to their places in the new one."""

import numpy as np
from numba import njit
from numpy.typing import NDArray


@njit(nogil=True, cache=True)
def move(
    starts: NDArray[np.int64],
    rows: NDArray[np.uint32],
    tf: NDArray[np.uint16],
    title_tf: NDArray[np.uint8],
    new_term: NDArray[np.int64],
    new_row: NDArray[np.int64],
    cursors: NDArray[np.int64],
    to_rows: NDArray[np.uint32],
    to_tf: NDArray[np.uint16],
    to_title_tf: NDArray[np.uint8],
) -> None:
    """Append one segment's postings to the new lists, in order.

    `new_row` is -1 for rows that are dropped; `cursors` holds, per new term, where its next
    posting goes, and is moved on.
    """
    for term in range(len(new_term)):
        for p in range(starts[term], starts[term + 1]):
            row = new_row[rows[p]]
            if row >= 0:
                place = cursors[new_term[term]]
                to_rows[place], to_tf[place], to_title_tf[place] = row, tf[p], title_tf[p]
                cursors[new_term[term]] = place + 1
