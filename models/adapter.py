"""LoRA adapters: what was trained beside the weights is added to them when they are loaded.

Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models" (arXiv 2106.09685): for a matrix W [out, in]
the adapter has A [r, in] and B [out, r], and W + scale · B A takes its place; scale is alpha / r, or with
`use_rslora` alpha / √r (Kalajdzievski, arXiv 2312.03732). Merged, an adapter costs nothing when the net runs.

Read are the files that PEFT writes: `adapter_config.json` and `adapter_model.safetensors`. What they may ask
for beyond that is refused by name, known or not: an adapter that is merged in part makes another net.
"""

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"

KEY = re.compile(r"base_model\.model\.(?P<path>.+)\.lora_(?P<side>[AB])\.weight")

SCALES = ("r", "lora_alpha", "use_rslora", "rank_pattern", "alpha_pattern", "fan_in_fan_out")
TOLD = (
    "auto_mapping",
    "base_model_name_or_path",
    "eva_config",
    "exclude_modules",
    "inference_mode",
    "layers_pattern",
    "layers_to_transform",
    "lora_dropout",
    "megatron_core",
    "peft_version",
    "qalora_group_size",
    "revision",
    "target_modules",
    "task_type",
)
"""Keys that say how an adapter was trained, or what its matrices say too."""

STARTS = (True, False, None, "gaussian", "eva", "orthogonal")
"""How training may have begun: other ways change the weights themselves first, which no file here says."""


@dataclass(frozen=True)
class Low:
    """A change of low rank to one layer: scale · B A, of a float [r, in] and b float [out, r]."""

    a: Tensor
    b: Tensor
    scale: float
    transposed: bool

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the weight that it changes."""
        shape = (self.b.shape[0], self.a.shape[1])
        return shape[::-1] if self.transposed else shape

    def change(self) -> Tensor:
        """What is added to the weight: float32 [out, in], or [in, out] where layers hold it like that."""
        product = self.scale * (self.b.float() @ self.a.float())
        return product.T if self.transposed else product


@dataclass(frozen=True)
class Adapter:
    """Changes to layers, by their names in the net that the adapter was trained on."""

    name: str
    layers: Mapping[str, Low]

    def merge(self, net: nn.Module) -> None:
        """Add the adapter to the weights of `net`, in place and in their number format.

        Raises ValueError for a layer that the net does not have, or that has another shape; then no weight is
        changed.
        """
        weights = {path: self._weight(net, path) for path in self.layers}
        with torch.no_grad():
            for path, weight in weights.items():
                weight += self.layers[path].change().to(weight.device)

    def _weight(self, net: nn.Module, path: str) -> Tensor:
        modules = dict(net.named_modules())
        # Trained on a net with a language model's head, a layer's name begins with that of the body.
        inside = path.removeprefix(f"{getattr(net, 'base_model_prefix', '')}.")
        weight = getattr(modules.get(path, modules.get(inside)), "weight", None)
        if not isinstance(weight, Tensor):
            raise ValueError(f"{self.name} changes {path}, and the weights have no such layer")
        if tuple(weight.shape) != self.layers[path].shape:
            raise ValueError(
                f"{self.name} changes {path} by a matrix of {self.layers[path].shape}, and that layer's "
                f"is of {tuple(weight.shape)}"
            )
        return weight


def read_adapter(name: str, folder: Path) -> Adapter:
    """Read the adapter called `name` in `folder`. ValueError says by its key what cannot be merged."""
    config = _config(name, folder)
    layers = {path: _low(name, config, path, *pair) for path, pair in _pairs(name, folder).items()}
    return Adapter(name, layers)


def merged(net: Any, adapter: Adapter, device: str, dtype: torch.dtype) -> Any:
    """A net that was loaded in float32 with the adapter added, and only then rounded, on `device`.

    Rounded before and after, a small change could be lost. What is no weight stays as it is, tables of the
    rotary embedding for one. Raises ValueError as `Adapter.merge` does.
    """
    adapter.merge(net)
    for weight in net.parameters():
        weight.data = weight.data.to(dtype)
    return net.to(device)


def _config(name: str, folder: Path) -> dict[str, Any]:
    file = folder / CONFIG
    if not file.is_file():
        raise ValueError(f"{name} is no adapter: {folder} has no {CONFIG}")
    try:
        config = json.loads(file.read_text("utf-8"))
    except ValueError as error:
        raise ValueError(f"{name} is no adapter: {file} is no JSON: {error}") from error
    if not isinstance(config, dict) or config.get("peft_type") != "LORA":
        raise ValueError(f"{name} is no LoRA adapter: peft_type in {file} is not LORA")
    given = {key: value for key, value in config.items() if key not in (*SCALES, *TOLD, "peft_type")}
    if given.pop("bias", "none") != "none":
        raise ValueError(f"{name} changes biases (bias is {config['bias']!r}), which is not merged")
    if given.pop("init_lora_weights", True) not in STARTS:
        raise ValueError(
            f"{name} was begun from changed weights (init_lora_weights is {config['init_lora_weights']!r}); "
            "convert it to one of the weights as they are published, as PEFT can when it saves"
        )
    if asked := sorted(key for key, value in given.items() if value):
        raise ValueError(f"{name} asks for {', '.join(asked)} in its {CONFIG}, which is not merged")
    return config


def _pairs(name: str, folder: Path) -> dict[str, tuple[Tensor, Tensor]]:
    try:
        tensors = load_file(folder / WEIGHTS)
    except (OSError, SafetensorError) as error:
        raise ValueError(f"{name} has no {WEIGHTS} that can be read: {error}") from error
    sides: dict[str, dict[str, Tensor]] = {}
    for key, tensor in sorted(tensors.items()):
        match = KEY.fullmatch(key)
        if match is None or tensor.ndim != 2:
            raise ValueError(f"{name} has {key} {tuple(tensor.shape)}, which is no matrix of LoRA")
        sides.setdefault(match["path"], {})[match["side"]] = tensor
    if alone := sorted(path for path, pair in sides.items() if len(pair) < 2):
        raise ValueError(f"{name} has one matrix of two for {', '.join(alone)}")
    if not sides:
        raise ValueError(f"{name} has no matrices in its {WEIGHTS}")
    return {path: (pair["A"], pair["B"]) for path, pair in sides.items()}


def _low(name: str, config: dict[str, Any], path: str, a: Tensor, b: Tensor) -> Low:
    rank = _of(name, config, "r", "rank_pattern", path)
    if not rank or not rank == a.shape[0] == b.shape[1]:
        raise ValueError(
            f"{name} has matrices {tuple(a.shape)} and {tuple(b.shape)} for {path}, and its {CONFIG} says "
            f"that their rank is {rank}"
        )
    alpha = _of(name, config, "lora_alpha", "alpha_pattern", path)
    if isinstance(alpha, bool) or not isinstance(alpha, int | float):
        raise ValueError(f"{name} has no number for lora_alpha of {path}: {alpha!r}")
    scale = alpha / (math.sqrt(rank) if config.get("use_rslora") else rank)
    return Low(a, b, scale, bool(config.get("fan_in_fan_out")))


def _of(name: str, config: dict[str, Any], key: str, patterns: str, path: str) -> Any:
    """A value of the whole adapter, or that of the first pattern that the end of a layer's name matches."""
    given = config.get(patterns) or {}
    try:
        found = (value for pattern, value in given.items() if re.fullmatch(rf"(.*\.)?({pattern})", path))
        return next(found, config.get(key))
    except (AttributeError, re.error) as error:
        raise ValueError(f"{name} has no patterns of layers' names in {patterns}: {given!r}") from error
