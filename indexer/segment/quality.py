"""The quality of a segment's passages, and which of them have no sparse vector because it was too low.

Kept so that nothing is dropped silently: whoever misses a passage can see that it was pruned, and how far it
was from staying, and tell that from not being found.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from indexer.segment.arrays import open_arrays, write_arrays


def write_quality(path: Path, values: NDArray[np.float32], pruned: NDArray[np.bool_]) -> None:
    """Write the quality of every row, and whether it was pruned."""
    write_arrays(path, {"quality": values, "pruned": pruned})


class Quality:
    """Reader of a segment's qualities: `values` float32[rows] and `pruned`, a mask over the rows."""

    def __init__(self, path: Path) -> None:
        arrays = open_arrays(path)
        self.values: NDArray[np.float32] = arrays["quality"]
        self.pruned: NDArray[np.bool_] = arrays["pruned"]
        self.rows = len(self.values)


def merge_quality(path: Path, parts: Sequence[tuple[Quality, NDArray[np.bool_]]]) -> None:
    """Write the kept rows of several files in order."""
    values = np.concatenate([quality.values[keep] for quality, keep in parts])
    write_quality(path, values, np.concatenate([quality.pruned[keep] for quality, keep in parts]))
