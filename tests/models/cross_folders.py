"""Folders of tiny cross-encoders that hold a head and name their encoder."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor
from transformers import AutoModel, BertForSequenceClassification

from tests.nets import tiny_encoder

HIDDEN = 32


def head_tensors(seed: int = 1) -> dict[str, Tensor]:
    """A random head for states of `HIDDEN` numbers."""
    generator = torch.Generator().manual_seed(seed)
    shapes = {
        "pooler.weight": (HIDDEN, HIDDEN),
        "pooler.bias": (HIDDEN,),
        "classifier.weight": (1, HIDDEN),
        "classifier.bias": (1,),
    }
    return {name: torch.randn(*shape, generator=generator) for name, shape in shapes.items()}


def say(path: Path, **recipe: Any) -> Path:
    """Write a `cross.json`."""
    path.mkdir(exist_ok=True)
    (path / "cross.json").write_text(json.dumps(recipe))
    return path


def headed(path: Path, seed: int = 1, **recipe: Any) -> Path:
    """A folder with a random head and what `recipe` says, for the dense encoder in `net` beside it."""
    tiny_encoder(path.parent / "net")
    say(path, **{"model": "../net", **recipe})
    save_file(head_tensors(seed), path / "head.safetensors")
    return path


def classifier(body: Any, head: dict[str, Tensor]) -> BertForSequenceClassification:
    """The sequence classifier of `transformers` with the same encoder and head."""
    body.config.num_labels = 1
    net = BertForSequenceClassification(body.config).eval()
    states = {name: each for name, each in body.state_dict().items() if not name.startswith("pooler")}
    states |= {f"pooler.dense.{name}": head[f"pooler.{name}"] for name in ("weight", "bias")}
    net.bert.load_state_dict(states)
    net.classifier.load_state_dict({name: head[f"classifier.{name}"] for name in ("weight", "bias")})
    return net


def encoder(path: Path) -> Any:
    """The transformer of a folder, in float32."""
    return AutoModel.from_pretrained(path, dtype=torch.float32).eval()
