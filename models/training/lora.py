"""LoRA beside weights that stay as they are, trained as it will be served and as fast as one core allows.

A layer multiplies by W + s · B A, merged in float32 and then rounded as when it is loaded
(`models.adapter.merged`), so its forward costs what it costs in serving. Only its backward looks at
A [rank, in] and B [out, rank] by themselves:

    dA = s · (dy B)ᵀ x,   dB = s · dyᵀ (x Aᵀ),   dx = dy (W + s · B A)

These are narrow products, where gradients of the whole matrix would be one more wide one, and of what went
through a layer only x is kept. Saved are PEFT's files. (Hu et al. 2021, arXiv 2106.09685.)
"""

import math
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn.functional import linear

from models.adapter import WEIGHTS

SCALE = 2.0
"""What is trained counts twice: alpha is twice the rank."""


class LoraLinear(nn.Module):
    """A linear layer and a change of low rank to it, which is untrained: A by chance, B zero, in float32.

    The layer's own weight [out, in] keeps its format; products are computed in `dtype`.
    """

    def __init__(self, layer: nn.Linear, rank: int, dtype: torch.dtype, chance: torch.Generator) -> None:
        super().__init__()
        device, bound = layer.weight.device, 1 / math.sqrt(layer.in_features)
        a = (2 * torch.rand(rank, layer.in_features, generator=chance) - 1) * bound
        self.lora_a = nn.Parameter(a.to(device))
        self.lora_b = nn.Parameter(torch.zeros(layer.out_features, rank, device=device))
        self.weight, self.bias = layer.weight, layer.bias
        self._dtype = dtype
        self._known: tuple[tuple[Tensor, Tensor], Tensor] | None = None

    def forward(self, states: Tensor) -> Tensor:
        """[..., out] of states [..., in], both in the format that is computed in."""
        found: Tensor = _Product.apply(  # type: ignore[no-untyped-call]
            states, self.merged(), self._bias(), self.lora_a, self.lora_b
        )
        return found

    def _bias(self) -> Tensor | None:
        bias: Tensor | None = self.bias  # torch declares that there is always one
        return None if bias is None else bias.to(self._dtype)

    def merged(self) -> Tensor:
        """W + s · B A, rounded: [out, in], computed once for all forwards of a step."""
        parts = self.lora_a.detach(), self.lora_b.detach()
        # Fused optimisers change parameters without counting it as a new version, so values are compared.
        if self._known is None or not all(map(torch.equal, parts, self._known[0])):
            # What is made while measuring would else be barred from the next step's gradients.
            with torch.inference_mode(False), torch.no_grad():
                whole = self.weight.float() + SCALE * (self.lora_b @ self.lora_a)
                self._known = (self.lora_a.clone(), self.lora_b.clone()), whole.to(self._dtype)
        return self._known[1]


class _Product(torch.autograd.Function):
    """The product with a merged matrix, whose gradients are those of what was merged into it."""

    @staticmethod
    def forward(
        ctx: Any, states: Tensor, merged: Tensor, bias: Tensor | None, a: Tensor, b: Tensor
    ) -> Tensor:
        ctx.save_for_backward(states, merged, a, b)
        return linear(states, merged, bias)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        states, merged, a, b = ctx.saved_tensors
        (above,) = gradients
        below = above @ merged if ctx.needs_input_grad[0] else None
        above, states = above.flatten(0, -2), states.flatten(0, -2)
        of_a = (above @ b.to(above.dtype)).T @ states
        of_b = above.T @ (states @ a.to(states.dtype).T)
        return below, None, None, SCALE * of_a.float(), SCALE * of_b.float()


def put_lora(
    net: nn.Module, rank: int, seed: int, dtype: torch.dtype, without: tuple[str, ...] = ("pooler",)
) -> None:
    """Put LoRA beside all linear layers of a net, in place; not those whose names begin as `without` says.

    Nothing else of it will be trained. All of it then computes in `dtype`, but the weights that LoRA is
    beside stay as they are, best in float32. ValueError if there is no such layer.
    """
    layers = {
        name: module
        for name, module in net.named_modules()
        if isinstance(module, nn.Linear) and not name.startswith(without)
    }
    if not layers:
        raise ValueError(f"{type(net).__name__} has no linear layers that LoRA could change")
    net.requires_grad_(False)
    chance = torch.Generator().manual_seed(seed)
    changed = {name: LoraLinear(layer, rank, dtype, chance) for name, layer in layers.items()}
    for name in changed:
        net.set_submodule(name, nn.Identity())
    # Parameters only: what is none keeps its format, as in `models.adapter.merged`.
    for weight in net.parameters():
        weight.data = weight.data.to(dtype)
    for name, layer in changed.items():
        net.set_submodule(name, layer)


def save_lora(net: nn.Module, folder: Path) -> None:
    """Write the LoRA matrices of a net in bfloat16, and their configuration, as PEFT would."""
    layers = {name: each for name, each in net.named_modules() if isinstance(each, LoraLinear)}
    (rank,) = {layer.lora_a.shape[0] for layer in layers.values()}
    tensors = {
        f"base_model.model.{name}.lora_{side}.weight": each.detach().cpu().bfloat16().contiguous()
        for name, layer in layers.items()
        for side, each in (("A", layer.lora_a), ("B", layer.lora_b))
    }
    folder.mkdir(parents=True, exist_ok=True)
    save_file(tensors, folder / WEIGHTS, {"format": "pt"})
    config = LoraConfig(r=rank, lora_alpha=round(SCALE * rank), lora_dropout=0.0, target_modules=list(layers))
    config.save_pretrained(str(folder))
