"""LoRA adapters as PEFT writes them."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import save_file
from torch import Tensor

CONFIG = {
    "alora_invocation_tokens": None,
    "alpha_pattern": {},
    "auto_mapping": None,
    "base_model_name_or_path": "someone/base",
    "bias": "none",
    "eva_config": None,
    "exclude_modules": None,
    "fan_in_fan_out": False,
    "inference_mode": True,
    "init_lora_weights": True,
    "layer_replication": None,
    "layers_pattern": None,
    "layers_to_transform": None,
    "loftq_config": {},
    "lora_alpha": 4,
    "lora_bias": False,
    "lora_dropout": 0.05,
    "megatron_config": None,
    "megatron_core": "megatron.core",
    "modules_to_save": None,
    "peft_type": "LORA",
    "peft_version": "0.18.0",
    "qalora_group_size": 16,
    "r": 2,
    "rank_pattern": {},
    "revision": None,
    "target_modules": ["q_proj", "down_proj"],
    "target_parameters": None,
    "task_type": "CAUSAL_LM",
    "trainable_token_indices": None,
    "use_dora": False,
    "use_qalora": False,
    "use_rslora": False,
}
"""What PEFT says of an adapter of rank 2 whose matrices count twice."""


def write_adapter(folder: Path, pairs: Mapping[str, tuple[Tensor, Tensor]], **config: Any) -> Path:
    """Write A and B by the names of their layers, in a net with a language model's head; returns `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {
        f"base_model.model.{path}.lora_{side}.weight": tensor.clone()
        for path, pair in pairs.items()
        for side, tensor in zip("AB", pair, strict=True)
    }
    save_file(tensors, folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text(json.dumps({**CONFIG, **config}))
    return folder


def random_pair(inputs: int, outputs: int, rank: int = 2, seed: int = 7) -> tuple[Tensor, Tensor]:
    """Matrices A [rank, inputs] and B [outputs, rank]."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(rank, inputs, generator=generator), torch.randn(outputs, rank, generator=generator)


def trained(folder: Path, net: Any, seed: int = 7) -> Any:
    """Write a random adapter to the queries and keys of `net` as PEFT writes it; returns the net that PEFT
    merges of both.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        config = LoraConfig(r=2, lora_alpha=6, target_modules=["query", "key"], init_lora_weights=False)
        adapted = get_peft_model(net, config)
    adapted.save_pretrained(folder)
    return adapted.merge_and_unload().eval()
