import numpy as np
import pytest

from indexer.segment.arrays import CorruptFile
from indexer.segment.tombstones import read_tombstones, write_tombstones


@pytest.mark.parametrize("rows", [1, 8, 13])
def test_a_bitmap_comes_back(tmp_path, rows):
    dead = np.arange(rows) % 3 == 0
    write_tombstones(tmp_path / "t", dead)
    assert read_tombstones(tmp_path / "t", rows).tolist() == dead.tolist()


def test_a_bitmap_of_another_segment_is_refused(tmp_path):
    write_tombstones(tmp_path / "t", np.ones(3, np.bool_))
    with pytest.raises(CorruptFile, match="tombstones of 3 rows for a segment of 4"):
        read_tombstones(tmp_path / "t", 4)
