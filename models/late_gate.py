"""Words that say nothing are not stored: a gate on the vectors that an index would keep of a passage.

ColBERTer's contextualised stop words (Hofstätter et al. 2022, arXiv 2203.13088): `g = relu(a . u + b)` of a
word's vector u; g * u takes its place, and where g is 0 nothing is stored. So the length of a vector says
how much its word counts here. Questions keep all their vectors, of unit length.
"""

from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

WEIGHTS = "late_gate.safetensors"


class Gate(nn.Module):
    """One number a vector. Its tensors are `weight` [dim], which is a, and `bias` [1]; untrained g is 1."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(dim))
        self.bias = nn.Parameter(torch.ones(1))

    def forward(self, vectors: Tensor) -> Tensor:
        """The numbers g >= 0, float32 [rows], of vectors float32 [rows, dim]."""
        return torch.relu(vectors @ self.weight + self.bias)


def load_gate(folder: Path, dim: int) -> Gate:
    """The gate in `late_gate.safetensors` of a folder, for vectors of `dim` numbers; ValueError if none."""
    file, gate = folder / WEIGHTS, Gate(dim)
    tensors = load_file(file) if file.is_file() else {}
    found = {name: tuple(each.shape) for name, each in tensors.items()}
    if found != {"weight": (dim,), "bias": (1,)}:
        raise ValueError(f"{file} should hold weight [{dim}] and bias [1], but holds {found}")
    gate.load_state_dict({name: each.float() for name, each in tensors.items()})
    return gate.requires_grad_(False)


def save_gate(folder: Path, gate: Gate) -> None:
    """Write a gate into a folder, whose `late.json` is to say that it is there."""
    save_file({name: each.contiguous() for name, each in gate.state_dict().items()}, folder / WEIGHTS)
