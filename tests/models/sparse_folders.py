"""Folders of tiny sparse encoders of every kind, with real but random weights."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from sentence_transformers import SparseEncoder as Layout
from sentence_transformers.base.modules import Router, Transformer
from sentence_transformers.sparse_encoder.modules import SparseStaticEmbedding, SpladePooling
from transformers import LlamaConfig, LlamaForCausalLM

from models.csr import Csr
from tests.nets import VOCABULARY, tiny_sparse_encoder, write_tokenizer

HIDDEN = 32


def dense(vectors: Csr, vocabulary: int = len(VOCABULARY)) -> NDArray[np.float32]:
    """The same rows as a matrix with zeros."""
    matrix = np.zeros((len(vectors), vocabulary), np.float32)
    for row, (terms, weights) in zip(matrix, vectors, strict=True):
        row[terms] = weights
    return matrix


def splade(path: Path, **pooling: Any) -> Path:
    """A SPLADE net as sentence-transformers writes it."""
    modules = _modules(path, **pooling)
    Layout(modules=modules, device="cpu").save(str(path / "layout"))
    return path / "layout"


def inference_free(path: Path, idf: dict[str, float]) -> Path:
    """A SPLADE net for documents and a table for questions, as sentence-transformers writes them."""
    modules = _modules(path)
    weights = torch.tensor([idf.get(piece, 1.0) for piece in VOCABULARY])
    table = SparseStaticEmbedding(modules[0].tokenizer, weights, frozen=True)
    router = Router.for_query_document([table], modules)
    Layout(modules=[router], device="cpu").save(str(path / "layout"))
    return path / "layout"


def term_net(path: Path, direction: torch.Tensor, bias: float, **recipe: Any) -> Path:
    """A BERT with term weights `f(a·h + b)`."""
    tiny_sparse_encoder(path)
    save_file({"a": direction, "b": torch.tensor([bias])}, path / "head.safetensors")
    return say(path, kind="mlp", pooling="max", **{"activation": "relu", **recipe})


def causal(path: Path, context: int = 64, **recipe: Any) -> Path:
    """A llama with a head, and for kind "prosper" a literal residual network."""
    path.mkdir(parents=True, exist_ok=True)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        config = LlamaConfig(
            vocab_size=len(VOCABULARY),
            hidden_size=HIDDEN,
            intermediate_size=2 * HIDDEN,
            num_hidden_layers=2,
            num_attention_heads=4,
            max_position_embeddings=context,
            initializer_range=0.3,
        )
        LlamaForCausalLM(config).save_pretrained(path)
        fc = {"fc.weight": torch.randn(len(VOCABULARY), HIDDEN), "fc.bias": torch.randn(len(VOCABULARY))}
    if recipe.get("kind") == "prosper":
        save_file(fc, path / "head.safetensors")
    write_tokenizer(path, context)
    return say(path, **recipe)


def say(path: Path, **recipe: Any) -> Path:
    """Write a `sparse.json`."""
    (path / "sparse.json").write_text(json.dumps(recipe))
    return path


def _modules(path: Path, **pooling: Any) -> list[Any]:
    plain = tiny_sparse_encoder(path / "plain")
    return [Transformer(str(plain), transformer_task="fill-mask"), SpladePooling(**pooling)]
