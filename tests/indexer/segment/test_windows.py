"""Numeric window filters: the label in [low, high), answered by a mask over an exact scan."""

import numpy as np
import pytest

from indexer.filters import parse
from indexer.segment.columns import Columns, write_columns
from indexer.segment.dense import Dense, write_dense

N = 64
LABELS = (np.random.default_rng(1).permutation(N) // 3).tolist()  # every label three times, none in order
VECTORS = np.random.default_rng(2).standard_normal((N, 8), np.float32)
QUERY = VECTORS[0]


@pytest.fixture(scope="module")
def columns(tmp_path_factory):
    path = tmp_path_factory.mktemp("c") / "columns"
    write_columns(path, [{"label": label} for label in LABELS], np.arange(N, dtype=np.uint32), {})
    return Columns(path, lambda ids: np.empty(0, np.int64))


@pytest.fixture(scope="module")
def dense(tmp_path_factory):
    path = tmp_path_factory.mktemp("d") / "dense"
    write_dense(path, VECTORS)
    return Dense(path)


@pytest.mark.parametrize("lower", ["gt", "gte"])
@pytest.mark.parametrize("upper", ["lt", "lte"])
def test_every_window_gives_what_looking_at_each_label_gives(columns, dense, lower, upper):
    scores = dense.scores(QUERY, np.arange(N))
    order = np.lexsort((np.arange(N), -scores)).tolist()
    for low in range(-1, N // 3 + 2):
        for high in range(low, N // 3 + 3):
            mask = parse({"label": {lower: low, upper: high}}).mask(columns, N)
            inside = [row for row in order if within(LABELS[row], low, high, lower, upper)]
            assert dense.search(QUERY, 5, mask)[0].tolist() == inside[:5]
            assert dense.search(QUERY, N, mask)[0].tolist() == inside


def within(label, low, high, lower, upper):
    above = label >= low if lower == "gte" else label > low
    return above and (label <= high if upper == "lte" else label < high)


def test_an_empty_window_gives_nothing(columns, dense):
    for window in ({"gte": 5, "lt": 5}, {"gt": 4, "lt": 5}, {"gte": 100}, {"gte": 9, "lt": 3}):
        assert dense.search(QUERY, 5, parse({"label": window}).mask(columns, N))[0].tolist() == []
