import numpy as np
import pytest
import torch
from torch import Tensor

from models.late_words import word_labels
from models.pooling import pool
from models.training.merging import Merging, labels, means, merged

NEAR = torch.tensor([[1.0, 0.0], [0.8, 0.6], [0.0, 1.0], [-0.6, 0.8], [0.6, 0.8]])
PLACES = torch.tensor([0, 0, 1, 1, 1])
TEXT, SPANS = "sea cat sea", np.array([[0, 0], [0, 3], [4, 7], [8, 11], [0, 0]])


def test_a_vector_moves_the_mean_of_its_group_by_one_over_the_size_and_no_other() -> None:
    jacobian = torch.autograd.functional.jacobian(lambda each: means(each, PLACES), NEAR)  # type: ignore[no-untyped-call]
    expected = torch.zeros(2, 2, 5, 2)
    for row, (group, size) in enumerate(((0, 2), (0, 2), (1, 3), (1, 3), (1, 3))):
        expected[group, :, row] = torch.eye(2) / size
    torch.testing.assert_close(jacobian, expected)


@pytest.mark.parametrize(("merging", "most"), [("clusters", 5), ("clusters", 9), ("hierarchical", 1)])
def test_a_text_of_few_vectors_keeps_them_all(merging: Merging, most: int) -> None:
    found = labels(merging, most, TEXT, SPANS, NEAR)
    torch.testing.assert_close(merged(NEAR, torch.from_numpy(found).long()), NEAR)


@pytest.mark.parametrize(
    ("merging", "most", "left"), [("clusters", 2, 2), ("hierarchical", 2, 3), ("words", 2, 4)]
)
def test_groups_are_those_of_an_index(merging: Merging, most: int, left: int) -> None:
    """Two clusters; a vector apart and half of four; two special tokens and two words."""
    vectors = NEAR.clone().requires_grad_()
    found = labels(merging, most, TEXT, SPANS, vectors)
    kept = merged(vectors, torch.from_numpy(found).long())
    assert len(kept) == left
    np.testing.assert_allclose(kept.detach().numpy(), pool(NEAR.numpy(), found), atol=1e-6)
    if merging == "words":
        assert found.tolist() == word_labels(TEXT, SPANS).tolist() == [0, 1, 2, 1, 3]


def test_a_mean_is_a_unit_vector_that_all_its_members_move() -> None:
    vectors = NEAR.clone().requires_grad_()
    kept: Tensor = merged(vectors, PLACES)
    torch.testing.assert_close(kept.norm(dim=1), torch.ones(2))
    kept[0, 1].backward()
    assert vectors.grad is not None
    assert vectors.grad.any(1).tolist() == [True, True, False, False, False]
