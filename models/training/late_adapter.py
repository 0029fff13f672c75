"""LoRA on an encoder of tokens, by PEFT: put into it in place, and saved as PEFT's files.

A change of low rank beside every matrix that token states go through (Hu et al. 2021, arXiv 2106.09685). The
encoder's own weights stay as they are, in their number format; what is trained is in float32, since small
steps would be lost in bfloat16.
"""

from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model_state_dict, inject_adapter_in_model
from safetensors.torch import save_file
from torch import nn

from models.adapter import WEIGHTS


def put_adapter(body: nn.Module, rank: int, seed: int) -> LoraConfig:
    """Put untrained LoRA into an encoder, in place; nothing else of it will be trained.

    A pooler is left out, as no token state goes through it. ValueError if there are no other matrices.
    """
    names = [name for name, each in body.named_modules() if isinstance(each, nn.Linear)]
    targets = [name for name in names if not name.startswith("pooler")]
    if not targets:
        raise ValueError(f"{type(body).__name__} has no linear layers that LoRA could change")
    config = LoraConfig(r=rank, lora_alpha=2 * rank, lora_dropout=0.0, target_modules=targets)
    body.requires_grad_(False)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        inject_adapter_in_model(config, body)
    for weight in body.parameters():
        if weight.requires_grad:
            weight.data = weight.data.float()
    return config


def save_adapter(body: nn.Module, config: LoraConfig, folder: Path) -> None:
    """Write what `put_adapter` put into an encoder, in bfloat16."""
    folder.mkdir(parents=True, exist_ok=True)
    state = get_peft_model_state_dict(body)
    tensors = {
        f"base_model.model.{name}": each.detach().cpu().bfloat16().contiguous()
        for name, each in state.items()
    }
    save_file(tensors, folder / WEIGHTS, {"format": "pt"})
    config.save_pretrained(str(folder))
