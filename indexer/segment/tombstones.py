"""Which rows of a segment are dead in one generation: a bitmap, one file per change.

Segments never change, so a deletion is a new bitmap that a later manifest names.
"""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from indexer.segment.arrays import CorruptFile, open_arrays, write_arrays
from indexer.segment.manifest import SegmentEntry, verify_files


def write_tombstones(path: Path, dead: NDArray[np.bool_]) -> None:
    """Write bool[rows], True where a row is dead; the caller synchronises the file."""
    write_arrays(path, {"bits": np.packbits(dead), "rows": np.array([len(dead)], np.int64)})


def dead_rows(directory: Path, entry: SegmentEntry) -> NDArray[np.bool_] | None:
    """Which rows of a segment of the collection in `directory` are dead; None while every row lives.

    The file is small, so it is compared with its checksum: a flipped bit would bring a document back.
    CorruptFile, OSError.
    """
    if entry.tombstones is None:
        return None
    if entry.tombstones_entry is not None:
        verify_files(directory / "tombstones", {entry.tombstones: entry.tombstones_entry})
    return read_tombstones(directory / "tombstones" / entry.tombstones, entry.rows)


def read_tombstones(path: Path, rows: int) -> NDArray[np.bool_]:
    """bool[rows], True where a row is dead. CorruptFile when it was written for another number of rows."""
    arrays = open_arrays(path)
    if int(arrays["rows"][0]) != rows:
        raise CorruptFile(f"{path}: tombstones of {int(arrays['rows'][0])} rows for a segment of {rows}")
    return np.unpackbits(arrays["bits"], count=rows).astype(np.bool_)
