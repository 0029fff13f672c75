from math import log

import pytest
import torch

from models.training.pair_distill import near_pairs, pair_distill, preferred

FIRST = torch.tensor([[0, 1]])


def loss(scores: tuple[float, ...], probability: float) -> float:
    return float(pair_distill(torch.tensor(scores), FIRST, torch.tensor([probability])))


def test_undecided_where_the_teacher_is_not() -> None:
    """P = 0.8 and equal scores: 0.8 ln(0.8 / 0.5) + 0.2 ln(0.2 / 0.5)."""
    assert loss((1.0, 1.0), 0.8) == pytest.approx(0.19274, abs=1e-5)


def test_nothing_is_lost_where_both_agree() -> None:
    assert loss((log(0.8), log(0.2)), 0.8) == pytest.approx(0, abs=1e-6)
    assert loss((100.0, 0.0), 1.0) == pytest.approx(0, abs=1e-6)


def test_the_other_order_of_a_pair_says_the_same() -> None:
    scores = torch.tensor([0.3, -1.0])
    turned = pair_distill(scores, FIRST.flip(1), torch.tensor([0.2]))
    assert float(turned) == pytest.approx(float(pair_distill(scores, FIRST, torch.tensor([0.8]))), abs=1e-6)


def test_the_loss_is_the_mean_over_pairs_and_nothing_without_any() -> None:
    scores = torch.tensor([1.0, 1.0, 1.0], requires_grad=True)
    pairs = torch.tensor([[0, 1], [1, 2]])
    both = pair_distill(scores, pairs, torch.tensor([0.8, 0.5]))
    assert both.item() == pytest.approx(0.19274 / 2, abs=1e-5)
    none = pair_distill(scores, pairs[:0], torch.empty(0))
    none.backward()
    assert none.item() == 0
    assert scores.grad is not None
    assert not scores.grad.any()


@pytest.mark.parametrize(
    ("window", "pairs"), [(1, [[2, 0], [0, 1]]), (2, [[2, 0], [2, 1], [0, 1]]), (9, [[2, 0], [2, 1], [0, 1]])]
)
def test_pairs_are_of_near_ranks_the_better_first(window: int, pairs: list[list[int]]) -> None:
    assert near_pairs(torch.tensor([5.0, 1.0, 9.0]), window).tolist() == pairs


def test_a_teacher_prefers_by_the_difference_of_its_scores() -> None:
    teacher = torch.tensor([log(4), 0.0])
    assert preferred(teacher, torch.tensor([[0, 1], [1, 0], [0, 0]])).tolist() == pytest.approx(
        [0.8, 0.2, 0.5]
    )
