"""Tiny nets for in-context reranking, and prompts to put to them."""

import json
from pathlib import Path
from typing import Any

import torch

from models.in_context.batches import Backend
from models.in_context.net import InContextNet
from models.in_context.opened import load_model, opened
from tests.nets import tiny_causal

DOCUMENTS = [
    ("the sea", "tide and moon and water"),
    ("", "cat"),
    ("rain", "the sun is in the water of the sea and the rain is water, to a dog"),
    ("moon", "a moon is a moon"),
    ("dog", "cat dog cat dog cat"),
]
QUERY = "is the tide of the moon"


def tiny_net(
    directory: Path,
    family: str = "llama",
    *,
    double: bool = False,
    backend: Backend | None = None,
    config: dict[str, Any] | None = None,
    **recipe: Any,
) -> InContextNet:
    """A random decoder of four layers, of which the third is read; float32, or float64 if `double`."""
    tiny_causal(directory / "weights", family, **(config or {}))
    given = {
        "model": "weights",
        "layer": 2,
        "document_tokens": 60,
        "gap": 64,
        "question_tokens": 40,
        **recipe,
    }
    (directory / "in_context.json").write_text(json.dumps(given))
    found = opened(str(directory), None)
    model, tokenizer = load_model(found, "cpu", "float32")
    return InContextNet(found, model.double() if double else model, tokenizer, "cpu", backend)


def tokens(net: InContextNet, documents: list[tuple[str, str]] = DOCUMENTS) -> list[list[int]]:
    """The documents as a net reads them."""
    return [cut.ids for cut in net.document_tokens(documents)]


def tolerance(net: InContextNet) -> float:
    """How far equal computations may be apart."""
    return 1e-10 if net.dtype == torch.float64 else 1e-5
