from itertools import product

import pytest
import torch
from torch import Tensor

from models.late_heads import Head, unit
from models.late_recipe import HeadSpec
from models.training.head_start import begun, directions

HIDDEN, DIM, INNER = 6, 3, 12
DEEP = [
    ("deep", activation, residual)
    for activation in ("identity", "relu", "gelu", "silu")
    for residual in (0, 1)
]
GLU = [
    ("glu", activation, residual)
    for activation in ("identity", "relu", "gelu", "silu")
    for residual in (0, 1)
]


def states() -> Tensor:
    """On one side of the origin, as states of a net are, and mostly in three directions."""
    chance = torch.Generator().manual_seed(3)
    spread = torch.tensor([5.0, 4.0, 3.0, 0.1, 0.1, 0.1])
    return torch.randn(200, HIDDEN, generator=chance) * spread + torch.tensor([40.0, 0, 0, 0, 0, 0])


def spec(kind: str, activation: str, residual: int, dim: int = DIM) -> HeadSpec:
    return HeadSpec.model_validate(
        {"kind": kind, "dim": dim, "inner": INNER, "activation": activation, "residual": residual}
    )


def test_directions_are_those_of_most_length_in_order() -> None:
    along = torch.tensor([[0.0, 3, 0], [2, 0, 0], [0, -3, 0], [0, 0, 1]])
    assert directions(along, 2).tolist() == [[0, 1, 0], [1, 0, 0]]


def test_there_are_no_more_directions_than_numbers() -> None:
    with pytest.raises(ValueError, match="states of 6 numbers have no 7 directions"):
        directions(states(), 7)


@pytest.mark.parametrize(("kind", "activation", "residual"), [*DEEP, *GLU])
def test_a_head_begins_as_the_principal_directions(kind: str, activation: str, residual: int) -> None:
    head = begun(spec(kind, activation, residual), states(), seed=0)
    wanted = unit(states() @ directions(states(), DIM).T)
    torch.testing.assert_close(head(states()), wanted, atol=1e-4, rtol=1e-4)
    assert all(weight.requires_grad for weight in head.parameters())


@pytest.mark.parametrize("residual", [False, True])
def test_so_does_a_single_matrix(residual: bool) -> None:
    head = begun(HeadSpec(kind="linear", dim=DIM, residual=residual), states(), seed=0)
    wanted = unit(states() @ directions(states(), DIM).T)
    torch.testing.assert_close(head(states()), wanted, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("kind", ["deep", "glu"])
def test_a_residual_of_the_same_width_begins_as_the_states(kind: str) -> None:
    head = begun(spec(kind, "gelu", 1, dim=HIDDEN), states(), seed=0)
    torch.testing.assert_close(head(states()), unit(states()))


def test_every_matrix_learns_after_a_step() -> None:
    for kind, residual in product(("deep", "glu"), (0, 1)):
        head = begun(spec(kind, "silu", residual), states(), seed=0)
        for _ in range(2):
            step(head)
        assert all(weight.grad is not None and weight.grad.any() for weight in head.parameters())


def step(head: Head) -> None:
    """Pull all vectors to the first direction."""
    head.zero_grad()
    head(states())[:, 0].sum().backward()
    with torch.no_grad():
        for weight in head.parameters():
            assert weight.grad is not None
            weight += 0.01 * weight.grad.sign()


@pytest.mark.parametrize(("kind", "room"), [("deep", 14), ("glu", 7)])
def test_a_narrow_head_needs_a_residual(kind: str, room: int) -> None:
    wide = torch.eye(8)
    narrow = HeadSpec.model_validate({"kind": kind, "dim": 7, "inner": 6, "activation": "relu"})
    with pytest.raises(ValueError, match=f"an inner width of {room} or more"):
        begun(narrow, wide, seed=0)
    begun(narrow.model_copy(update={"residual": True}), wide, seed=0)
