"""Heads that begin where there is none: as the principal directions of what they are to project.

Token states rank well as they are, and random numbers would first have to find back to that. So a head
begins as the matrix P [dim, hidden] of the directions that states lie in most, up to a factor that a unit
vector does not show:

- linear, and any head with a residual between different widths: P itself, with the rest of the head at 0;
- deep without a residual: `f(P x) - f(-P x)`, which is P x for ReLU, GELU and SiLU, and 2 P x for a line;
- GLU without a residual: P x times the activation of the same number in every row, which only a state against
  the mean of all states makes negative.
"""

import torch
from torch import Tensor

from models.late_heads import Head
from models.late_recipe import HeadSpec

SPREAD = 0.02
"""Standard deviation of what begins at random: small beside the rows of P, which have length 1."""


def directions(states: Tensor, dim: int) -> Tensor:
    """The `dim` principal directions of states [rows, hidden]: orthonormal float32 [dim, hidden].

    Not of their differences from the mean: products of the projections are to be those of the states.
    ValueError if there are fewer than `dim` columns.
    """
    if states.shape[1] < dim:
        raise ValueError(f"states of {states.shape[1]} numbers have no {dim} directions: ask for fewer")
    moments = states.double().T @ states.double()
    _, vectors = torch.linalg.eigh(moments)
    chosen = vectors[:, -dim:].flip(1).T
    # Which of two opposite vectors is found may change from machine to machine.
    signs = chosen.gather(1, chosen.abs().argmax(1, keepdim=True)).sign()
    found: Tensor = (chosen * signs).float().contiguous()
    return found


def begun(spec: HeadSpec, states: Tensor, seed: int) -> Head:
    """A head whose vectors are at first those of the states' principal directions.

    `states` are a sample, float [rows, hidden]. ValueError where the inner width has no room for that.
    """
    head = Head(spec, states.shape[1])
    principal = directions(states, spec.dim)
    chance = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weight in head.state_dict().items():
            weight.copy_(torch.randn(weight.shape, generator=chance) * SPREAD)
            if name == "out.weight" and head.into is not None:
                weight.zero_()
        _place(head, principal, states.float().mean(0))
    return head.requires_grad_(True)


def _place(head: Head, principal: Tensor, middle: Tensor) -> None:
    """Write P where it has to be."""
    if head.into is None:
        head.out.weight.copy_(torch.zeros_like(principal) if head.spec.residual else principal)
    if head.spec.residual:
        if head.skip is not None:
            head.skip.weight.copy_(principal)
        return
    if head.into is None:
        return
    wanted = head.spec.dim * (1 if head.gate is not None else 2)
    if head.out.in_features < wanted:
        raise ValueError(f"a head without a residual begins with an inner width of {wanted} or more")
    if head.gate is not None:
        head.gate.weight.copy_((middle / middle.square().sum()).expand_as(head.gate.weight))
        _signed(head.into.weight, head.out.weight, principal, (1.0,))
    else:
        _signed(head.into.weight, head.out.weight, principal, (1.0, -1.0))


def _signed(into: Tensor, out: Tensor, principal: Tensor, signs: tuple[float, ...]) -> None:
    """One block of rows a sign: `sum over signs s of s * f(s P x)`."""
    for number, sign in enumerate(signs):
        rows = slice(number * len(principal), (number + 1) * len(principal))
        into[rows] = sign * principal
        out[:, rows] = sign * torch.eye(len(principal))
