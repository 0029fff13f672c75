"""From the states of a net to token vectors of unit length: the projections that ColBERT models end with.

A single matrix is what ColBERT has (Khattab & Zaharia 2020, arXiv 2004.12832, D1). MaxSim sends gradient
through the winning pairs only, and a wider block with a residual takes such updates better (Clavié et al.
2025, arXiv 2510.12327): `W2·f(W1·x)` ("deep") or `W2·(f(Wg·x) ⊙ (Wv·x))` ("glu"), with x added or not. No
layer has a bias. What is linear is folded into one matrix before it serves.
"""

from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn.functional import gelu, normalize, relu, silu

from models.late_recipe import FILE, Activation, HeadSpec, Recipe, read_recipe

WEIGHTS = "late_head.safetensors"

ACTIVATIONS: dict[Activation, Callable[[Tensor], Tensor]] = {"relu": relu, "gelu": gelu, "silu": silu}
"""What is no line; identity is nothing to compute."""


class Head(torch.nn.Module):
    """A projection of states [..., hidden] to unit vectors [..., spec.dim].

    Its tensors are `out.weight` [dim, inner or hidden], `into.weight` and for "glu" `gate.weight`
    [inner, hidden], and `skip.weight` [dim, hidden] for a residual between different widths.
    """

    def __init__(self, spec: HeadSpec, hidden: int) -> None:
        super().__init__()
        self.spec, self.hidden = spec, hidden
        inner = spec.inner or hidden
        self.into = None if spec.kind == "linear" else _matrix(hidden, inner)
        self.gate = _matrix(hidden, inner) if spec.kind == "glu" else None
        self.out = _matrix(inner, spec.dim)
        self.skip = _matrix(hidden, spec.dim) if spec.residual and hidden != spec.dim else None

    def forward(self, states: Tensor) -> Tensor:
        """Vectors float32 of unit length."""
        return unit(self.project(states))

    def project(self, states: Tensor) -> Tensor:
        """The vectors before they are normalised, in the number format of `states`."""
        projected: Tensor = self.out(self._between(states))
        if not self.spec.residual:
            return projected
        return projected + (states if self.skip is None else self.skip(states))

    def folded(self) -> "Head":
        """The same projection in a single matrix if it is linear, else this one."""
        if self.spec.kind == "glu" or self.spec.activation not in (None, "identity"):
            return self
        with torch.no_grad():
            weight = self.project(torch.eye(self.hidden)).T.contiguous()
        return _filled(HeadSpec(kind="linear", dim=self.spec.dim), self.hidden, {"out.weight": weight})

    def _between(self, states: Tensor) -> Tensor:
        if self.into is None:
            return states
        activate = ACTIVATIONS.get(self.spec.activation or "identity", torch.nn.Identity())
        value: Tensor = self.into(states)
        return activate(value) if self.gate is None else activate(self.gate(states)) * value


def unit(vectors: Tensor) -> Tensor:
    """These vectors in float32 and of unit length; what a net without a head gives for its states."""
    return normalize(vectors.float(), dim=-1)


def load_head(folder: Path) -> Head:
    """The head in `late_head.safetensors` of the form that `late.json` says, in float32.

    Raises ValueError if there is none, or if its tensors are of other names or shapes.
    """
    spec, file = read_recipe(folder).head, folder / WEIGHTS
    if spec is None:
        raise ValueError(f"{folder / FILE} says nothing of a head")
    tensors = load_file(file) if file.is_file() else {}
    first = tensors.get("out.weight" if spec.kind == "linear" else "into.weight")
    if first is None or first.ndim != 2:
        raise ValueError(f"{file} holds no weights of a {spec.kind} head")
    return _filled(spec, first.shape[1], tensors, str(file))


def save_head(folder: Path, head: Head) -> None:
    """Write a head into a folder: its tensors, and its form into `late.json`, whose other keys stay."""
    recipe = read_recipe(folder) if (folder / FILE).is_file() else Recipe()
    told = recipe.model_copy(update={"head": head.spec})
    save_file({name: each.contiguous() for name, each in head.state_dict().items()}, folder / WEIGHTS)
    (folder / FILE).write_text(told.model_dump_json(exclude_defaults=True, indent=2))


def _matrix(inputs: int, outputs: int) -> torch.nn.Linear:
    return torch.nn.Linear(inputs, outputs, bias=False)


def _filled(spec: HeadSpec, hidden: int, tensors: dict[str, Tensor], where: str = "this") -> Head:
    with torch.device("meta"):
        head = Head(spec, hidden)
    expected = {name: tuple(each.shape) for name, each in head.state_dict().items()}
    found = {name: tuple(each.shape) for name, each in tensors.items()}
    if found != expected:
        raise ValueError(f"{where} should hold tensors of shapes {expected}, but holds {found}")
    head.load_state_dict({name: each.float() for name, each in tensors.items()}, assign=True)
    return head.requires_grad_(False)
