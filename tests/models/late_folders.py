"""Folders of tiny encoders of token vectors in every layout, with real but random weights."""

import json
import string
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from sentence_transformers import MultiVectorEncoder
from sentence_transformers.base.modules import Dense, Normalize, Transformer
from sentence_transformers.multi_vector_encoder.modules import MultiVectorMask

from tests.nets import VOCABULARY, tiny_encoder

HIDDEN, DIM = 32, 8
MARKERS = {"query": "[unused0]", "document": "[unused1]"}
RENAMED = {"##8": MARKERS["query"], "##9": MARKERS["document"]}
"""Word pieces that no test's text has, whose places in the vocabulary the markers take."""

QUERY, DOCUMENT = VOCABULARY.index("##8"), VOCABULARY.index("##9")


def plain(path: Path, **keys: Any) -> Path:
    """A BERT as transformers writes it, whose vocabulary has the two markers."""
    tiny_encoder(path, **keys)
    for name in ("modules.json", "sentence_bert_config.json"):
        (path / name).unlink()
    tokenizer = json.loads((path / "tokenizer.json").read_text())
    vocabulary = tokenizer["model"]["vocab"]
    tokenizer["model"]["vocab"] = {RENAMED.get(word, word): number for word, number in vocabulary.items()}
    (path / "tokenizer.json").write_text(json.dumps(tokenizer))
    return path


def without_special_tokens(path: Path) -> Path:
    """Have the tokeniser of a folder put nothing before and after a text, as its class would."""
    for name, changes in (
        ("tokenizer.json", {"post_processor": None}),
        ("tokenizer_config.json", {"tokenizer_class": "PreTrainedTokenizerFast"}),
    ):
        (path / name).write_text(json.dumps({**json.loads((path / name).read_text()), **changes}))
    return path


def say(path: Path, **recipe: Any) -> Path:
    """Write a `late.json`."""
    (path / "late.json").write_text(json.dumps(recipe))
    return path


def multi_vector(
    path: Path,
    *,
    dense: list[Any] | None = None,
    mask: Any = None,
    more: tuple[Any, ...] = (),
    prompts: dict[str, str] | None = None,
    **transformer: Any,
) -> Path:
    """A ColBERT as sentence-transformers writes it; `transformer` are settings of its first module."""
    first = Transformer(str(plain(path / "plain")), **transformer)
    first.tokenizer.add_special_tokens({"additional_special_tokens": list(MARKERS.values())})
    modules = [
        first,
        *(dense or [projection()]),
        mask or MultiVectorMask(skiplist_words=list(string.punctuation)),
        Normalize(module_input_name="token_embeddings"),
        *more,
    ]
    told = {kind: f"{marker} " for kind, marker in MARKERS.items()} if prompts is None else prompts
    MultiVectorEncoder(modules=modules, device="cpu", prompts=told).save(str(path / "layout"))
    return path / "layout"


def pylate(path: Path) -> Path:
    """A ColBERT as PyLate wrote it before sentence-transformers had such models."""
    plain(path)
    kinds = ("sentence_transformers.models.Transformer", "pylate.models.Dense.Dense")
    folders = ("", "1_Dense")
    modules = [
        {"idx": number, "name": str(number), "path": folder, "type": kind}
        for number, (folder, kind) in enumerate(zip(folders, kinds, strict=True))
    ]
    dense = {
        "in_features": HIDDEN,
        "out_features": DIM,
        "bias": False,
        "activation_function": "torch.nn.modules.linear.Identity",
    }
    config = {
        "model_type": "ColBERT",
        "query_prefix": "[unused0] ",
        "document_prefix": "[unused1] ",
        "query_length": 12,
        "document_length": 20,
        "attend_to_expansion_tokens": False,
        "skiplist_words": [".", "!"],
    }
    (path / "1_Dense").mkdir()
    for name, value in (
        ("modules.json", modules),
        ("1_Dense/config.json", dense),
        ("config_sentence_transformers.json", config),
        ("sentence_bert_config.json", {"max_seq_length": 20, "do_lower_case": False}),
    ):
        (path / name).write_text(json.dumps(value))
    save_file({"linear.weight": random(DIM, HIDDEN)}, path / "1_Dense" / "model.safetensors")
    return path


def stanford(path: Path) -> Path:
    """A ColBERT as Stanford's library writes it: the projection beside the weights of BERT."""
    plain(path)
    config = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps({**config, "architectures": ["HF_ColBERT"]}))
    tensors = {f"bert.{name}": each for name, each in load_file(path / "model.safetensors").items()}
    tensors["linear.weight"] = random(DIM, HIDDEN)
    save_file(tensors, path / "model.safetensors", {"format": "pt"})
    metadata = {
        "query_maxlen": 12,
        "doc_maxlen": 20,
        "mask_punctuation": True,
        "attend_to_mask_tokens": False,
    }
    (path / "artifact.metadata").write_text(json.dumps(metadata))
    return path


def projection(inputs: int = HIDDEN, outputs: int = DIM, **keys: Any) -> Dense:
    """One random layer of a head."""
    return Dense(
        inputs,
        outputs,
        **{
            "bias": False,
            "activation_function": torch.nn.Identity(),
            "init_weight": random(outputs, inputs),
            "module_input_name": "token_embeddings",
            **keys,
        },
    )


def random(*shape: int, seed: int = 7) -> torch.Tensor:
    """Random numbers, always the same."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))
