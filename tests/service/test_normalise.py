"""The worked examples of the four normalisations, and what happens where a list says nothing."""

from functools import partial

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.stages.normalise import distribution, minmax, missing, normaliser, theoretical, zscore

BM25, COSINE = [12, 9, 3], [0.8, 0.6, 0.7]
EVERY = [minmax, partial(theoretical, floor=-1.0), zscore, distribution]


def array(values: list[float]) -> np.ndarray:
    return np.array(values, np.float32)


def near(*values: float):
    return pytest.approx(list(values), abs=5e-5)


def test_min_max():
    assert minmax(array(BM25)).tolist() == near(1, 0.6667, 0)
    assert minmax(array(COSINE)).tolist() == near(1, 0, 0.5)


def test_theoretical_min_max_and_the_convex_combination_of_two():
    lexical, dense = theoretical(array(BM25), 0), theoretical(array(COSINE), -1)
    assert lexical.tolist() == near(1, 0.75, 0.25)
    assert dense.tolist() == near(1, 0.8889, 0.9444)
    assert (0.8 * dense + 0.2 * lexical).tolist() == near(1, 0.8611, 0.8056)


def test_z_scores_have_mean_0_and_sample_deviation_1():
    assert zscore(array([1, 2, 3])).tolist() == [-1, 0, 1]
    assert zscore(array([12, 9, 3])).tolist() == near(0.8729, 0.2182, -1.0911)


def test_distribution_based():
    assert distribution(array(BM25)).tolist() == near(0.6455, 0.5364, 0.3182)
    assert distribution(array(COSINE)).tolist() == near(0.6667, 0.3333, 0.5)


def test_an_outlier_is_clipped():
    assert distribution(array([0.0] * 99 + [1])).tolist()[-1] == 1.0


@pytest.mark.parametrize(
    ("normalise", "value"), [(minmax, 0), (zscore, 0), (distribution, 0.5), (EVERY[1], 1)]
)
@pytest.mark.parametrize("number", [0, 1, 3])
def test_one_score_or_equal_ones_say_nothing_about_order(normalise, value: float, number: int):
    assert normalise(array([0.1] * number)).tolist() == [value] * number


def test_the_best_may_be_no_better_than_the_floor():
    assert theoretical(array([0, 0]), 0).tolist() == [0, 0]


def test_other_scores_go_by_what_the_list_has():
    listed, others = array([4, 3, 2]), array([3, 2, 1, 0])
    assert minmax(others, listed).tolist() == [0.5, 0, -0.5, -1]
    assert theoretical(others, 0, listed).tolist() == [0.75, 0.5, 0.25, 0]
    assert zscore(others, listed).tolist() == [0, -1, -2, -3]
    assert distribution(others, listed).tolist() == near(1 / 2, 1 / 3, 1 / 6, 0)
    assert distribution(array([3, 2, 1]), array([2, 2])).tolist() == [1, 0.5, 0], "the limit"


@pytest.mark.parametrize(
    ("name", "lowest"), [("minmax", 0), ("theoretical", 0), ("zscore", -1), ("distribution", 0)]
)
def test_what_a_list_did_not_find_counts(name, lowest: float):
    scores = array([3, 2, 1])
    values = normaliser(name, 0.0)(scores, scores)
    assert missing(name, values) == lowest
    assert missing(name, values[:0]) == 0


SCORES = st.lists(st.integers(-50, 50), min_size=1, max_size=8)


@pytest.mark.parametrize("normalise", EVERY)
@given(scores=SCORES)
def test_order_is_kept(normalise, scores: list[int]):
    found = normalise(array(sorted(scores)))
    assert np.isfinite(found).all()
    assert (np.diff(found) >= 0).all()


@given(scores=SCORES, slope=st.sampled_from([0.25, 2.0, 8.0]), shift=st.integers(-10, 10))
def test_a_fixed_affine_map_is_undone(scores: list[int], slope: float, shift: int):
    before, after = array(scores), array([slope * score + shift for score in scores])
    for normalise in (minmax, zscore, distribution):
        assert normalise(after) == pytest.approx(normalise(before), abs=1e-9)
