import numpy as np

from indexer.segment.ragged import blocks, kept, offsets_of


def test_rows_begin_where_those_before_them_end() -> None:
    assert offsets_of([2, 0, 3]).tolist() == [0, 2, 2, 5]
    assert offsets_of([]).tolist() == [0]


def test_blocks_hold_so_many_elements_or_one_row() -> None:
    found = [(begin, end, where.tolist()) for begin, end, where in blocks(np.array([2, 1, 9, 1, 1, 1]), 3)]
    assert found == [(0, 2, [0, 2, 3]), (2, 3, [0, 9]), (3, 6, [0, 1, 2, 3])]
    assert list(blocks(np.array([], np.int64), 3)) == []


def test_neighbours_that_are_kept_are_one_view() -> None:
    array, starts = np.arange(10), np.array([0, 2, 5, 6, 10])
    views = list(kept(array, starts, np.array([True, True, False, True])))
    assert [view.tolist() for view in views] == [[0, 1, 2, 3, 4], [6, 7, 8, 9]]
    assert all(view.base is array for view in views)
