"""Decoders that learn to weigh their vocabulary: the nets of `models.sparse_nets`, with LoRA and gradients.

A net gives two vectors of a text: the weights W that it is matched by, and the base weights w that FLOPS
keeps sparse. They differ for PROSPER, whose literal residual network lifts the text's own terms.
"""

import math
from abc import ABC, abstractmethod
from typing import Any, cast

import torch
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.lora import Linear as LoraLinear
from torch import Tensor, nn

from models.sparse_heads import Projection, activate, at_last, literal_residual, own_terms, pool_projected
from models.sparse_nets import split

ADAPTED = ".base_layer"
"""What LoRA puts into the name of a weight that it changes."""


class DecoderNet(nn.Module, ABC):
    """A causal model with LoRA on every linear layer: a `models.sparse_nets.Net`, and its weights merged."""

    def __init__(self, whole: Any, lora: LoraConfig) -> None:
        super().__init__()
        for weight in whole.parameters():
            weight.requires_grad_(False)
        head = whole.get_output_embeddings()
        self._head = next((name for name, module in whole.named_modules() if module is head), "")
        self.body, self.projection = split(whole)
        inject_adapter_in_model(lora, self.body)
        for weight in self.body.parameters():
            if weight.requires_grad:  # the optimiser's steps would be lost in bfloat16
                weight.data = weight.data.float()

    def forward(self, ids: Tensor, real: Tensor, voting: Tensor) -> Tensor:
        """See `models.sparse_nets.Net`."""
        return self.both(ids, real, voting)[0]

    @abstractmethod
    def both(self, ids: Tensor, real: Tensor, voting: Tensor) -> tuple[Tensor, Tensor]:
        """W and w, float32 [texts, vocabulary], of a batch as `models.sparse_nets.Net` takes it."""

    def beside(self) -> dict[str, Tensor]:
        """Tensors that a folder holds beside the causal model, by name; none for most."""
        return {}

    def merged(self) -> dict[str, Tensor]:
        """The causal model's weights by name with LoRA added, each in its own number format."""
        found = {
            name.replace(ADAPTED, ""): weight
            for name, weight in self.body.state_dict().items()
            if ".lora_" not in name
        }
        for name, layer in self.body.named_modules():
            if isinstance(layer, LoraLinear):
                weight = cast(nn.Linear, layer.get_base_layer()).weight
                change = layer.get_delta_weight("default").detach().float()
                found[f"{name}.weight"] = (weight.float() + change).to(weight.dtype)
        if not self.body.config.tie_word_embeddings:
            found[f"{self._head}.weight"] = self.projection.weight
            if self.projection.bias is not None:
                found[f"{self._head}.bias"] = self.projection.bias
        return found

    def scale(self, factors: Tensor) -> None:
        """Multiply the projection's rows, and so logits, by factors from 0, [vocabulary].

        Its weights are then its own, and no longer those of the embeddings.
        """
        weight, bias = self.projection
        scaled = (weight.float() * factors[:, None]).to(weight.dtype)
        self.projection = Projection(scaled, None if bias is None else bias * factors)
        self.body.config.tie_word_embeddings = False

    def states(self, ids: Tensor, real: Tensor) -> Tensor:
        """What is projected to the vocabulary: [texts, positions, hidden]."""
        found: Tensor = self.body(input_ids=ids, attention_mask=real.long(), use_cache=False).logits
        return found


class Echo(DecoderNet):
    """The largest logits of the positions that vote: of the second copy, where a text stands twice."""

    def both(self, ids: Tensor, real: Tensor, voting: Tensor) -> tuple[Tensor, Tensor]:
        """See `DecoderNet`; they are one."""
        weights = pool_projected(self.states(ids, real), voting, self.projection, "max", "log1p")
        return weights, weights


class Prosper(DecoderNet):
    """The logits of the last position, and a literal residual network that begins as the projection."""

    def __init__(self, whole: Any, lora: LoraConfig) -> None:
        super().__init__(whole, lora)
        vocabulary, hidden = self.projection.weight.shape
        self.down = nn.Parameter(torch.randn(lora.r, hidden, device=whole.device) / hidden**0.5)
        self.up = nn.Parameter(torch.zeros(vocabulary, lora.r, device=whole.device))
        self.bias = nn.Parameter(torch.zeros(vocabulary, device=whole.device))

    def both(self, ids: Tensor, real: Tensor, voting: Tensor) -> tuple[Tensor, Tensor]:
        """See `DecoderNet`."""
        last = at_last(self.states(ids, real), real)
        base = activate(self.projection(last), "log1p")
        squashed = activate(last, "log1p")
        begun = (squashed.to(last.dtype) @ self.projection.weight.T).float()
        compensation = begun + (squashed @ self.down.T) @ self.up.T + self.bias
        literal = own_terms(ids, torch.ones_like(ids, dtype=torch.float32), voting, base.shape[1])
        return literal_residual(base, compensation, literal > 0), base

    def beside(self) -> dict[str, Tensor]:
        """The literal residual network, `fc.weight` and `fc.bias`."""
        begun = self.projection.weight
        changed = begun.float() + self.up.detach() @ self.down.detach()
        return {"fc.weight": changed.to(begun.dtype), "fc.bias": self.bias.detach()}


def cut(whole: Any, layers: int | None) -> None:
    """Leave only the first `layers` of a causal model, in place; None leaves all. ValueError for too many."""
    decoder = whole.get_decoder()
    if layers is None:
        return
    if not 1 <= layers <= len(decoder.layers):
        raise ValueError(f"of {len(decoder.layers)} layers the first {layers} cannot be kept")
    decoder.layers = decoder.layers[:layers]
    whole.config.num_hidden_layers = layers
    if getattr(whole.config, "layer_types", None):
        whole.config.layer_types = whole.config.layer_types[:layers]


def rarity(weights: Tensor) -> Tensor:
    """How seldom each term is above zero in weights [texts, vocabulary]: `ln(n / df) / ln n`, from 0 to 1.

    One that no text has is as rare as one that a single text has.
    """
    texts = len(weights)
    counts = (weights > 0).sum(0).clamp_min(1)
    return (texts / counts).log() / max(1.0, math.log(texts))


def window(weights: Tensor, most: int | None) -> Tensor:
    """The lexical focusing window: the `most` largest weights of each row of [texts, vocabulary], else 0.

    A row with no more than that above zero stays as it is, and so do all rows if `most` is None. Of equal
    weights that of the lower entry stays.
    """
    if most is None:
        return weights
    kept = torch.sort(weights.detach(), dim=1, descending=True, stable=True).indices[:, :most]
    return weights * torch.zeros_like(weights).scatter_(1, kept, 1.0)
