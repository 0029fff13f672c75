import pytest
import torch

from models.training.late_scores import maxsim

QUESTION = torch.tensor([[1.0, 0.0], [0.6, 0.8]])
PASSAGE = torch.tensor([[0.8, 0.6], [0.0, 1.0]])


def test_a_score_is_the_mean_of_the_best_products() -> None:
    """Products [0.8, 0] and [0.96, 0.8]: the best are 0.8 and 0.96."""
    assert maxsim([QUESTION], [PASSAGE]).tolist() == [[pytest.approx(0.88)]]
    assert maxsim([QUESTION], [PASSAGE.flip(0)]).tolist() == [[pytest.approx(0.88)]]


def test_questions_and_passages_of_any_length_meet() -> None:
    """A padded row would have product 0, which is more than -1."""
    scores = maxsim([QUESTION, QUESTION[:1]], [-QUESTION[:1], PASSAGE, QUESTION])
    assert scores[0].tolist() == pytest.approx([-0.8, 0.88, 1])
    assert scores[1].tolist() == pytest.approx([-1, 0.8, 1])


def test_only_the_best_pairs_learn() -> None:
    passage = PASSAGE.clone().requires_grad_()
    maxsim([QUESTION[:1]], [passage]).sum().backward()
    assert passage.grad is not None
    assert passage.grad.tolist() == [[1, 0], [0, 0]]
