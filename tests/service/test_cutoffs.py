"""How many candidates are worth a score: the examples of methods D8."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.stages.cutoffs import Patience, worth_scoring

FIRST_STAGE = np.array([20, 18, 17.5, 17, 16, 12], np.float32)


@pytest.mark.parametrize(
    ("alpha", "kept"),
    [
        (0.1, 5),  # 17.5 at rank 3, so at least 15.75
        (0.0, 3),
        (1.0, 6),
        (0.03, 4),  # at least 16.975: a larger alpha keeps more
    ],
)
def test_candidates_far_below_the_last_that_is_wanted_are_not_worth_it(alpha: float, kept: int):
    assert worth_scoring(FIRST_STAGE, 3, alpha) == kept


def test_a_tie_at_the_threshold_is_kept():
    assert worth_scoring(np.array([4, 2, 2, 2, 1], np.float32), 2, 0.0) == 4


def test_fewer_than_wanted_are_all_kept():
    assert worth_scoring(FIRST_STAGE[:2], 3, 0.0) == 2
    assert worth_scoring(FIRST_STAGE[:0], 3, 0.0) == 0


def test_below_zero_the_margin_is_below_the_score():
    # -2 at rank 2 and half of its size below it: down to -3
    assert worth_scoring(np.array([-1, -2, -3, -3.5], np.float32), 2, 0.5) == 3


def outlasted(scores: list[float], final: int, patience: int | None) -> int | None:
    return Patience(final, patience).outlasts(scores)


def test_patience_ends_with_so_many_in_a_row_that_do_not_improve():
    assert outlasted([5, 4, 3, 9, 1], final=2, patience=1) == 3
    assert outlasted([5, 4, 3, 9, 1, 1, 9], final=2, patience=2) == 6


def test_the_first_that_are_wanted_do_not_try_patience():
    assert outlasted([5, 1, 1, 1], final=4, patience=1) is None


def test_equal_to_the_worst_of_the_best_is_no_improvement():
    assert outlasted([5, 4, 4], final=2, patience=1) == 3


@given(st.lists(st.integers(0, 9)), st.integers(1, 4), st.integers(1, 4), st.integers(1, 5))
def test_it_does_not_matter_in_which_blocks_scores_come(
    scores: list[int], final: int, patience: int, block: int
):
    whole, steps = outlasted([float(each) for each in scores], final, patience), Patience(final, patience)
    looked = 0
    for begin in range(0, len(scores), block):
        end = steps.outlasts([float(each) for each in scores[begin : begin + block]])
        if end is not None:
            assert whole == looked + end
            return
        looked += len(scores[begin : begin + block])
    assert whole is None


@given(st.lists(st.integers(0, 9)), st.integers(1, 4))
def test_endless_patience_sees_everything(scores: list[int], final: int):
    assert outlasted([float(each) for each in scores], final, None) is None
    assert outlasted([float(each) for each in scores], final, max(1, len(scores) - final + 1)) is None
