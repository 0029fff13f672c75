"""From a name to a decoder in memory: which weights, with which adapter, and how they are used.

A name is that of a folder with an `in_context.json` (see `models.in_context.recipe`) or of plain weights,
which are then used by the default recipe. Weights are safetensors, or one GGUF file that is converted once.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from transformers import AutoConfig, AutoModel, AutoTokenizer
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_MASKED_LM_MAPPING_NAMES,
)

from models.adapter import merged, read_adapter
from models.based import joint, named, refuse_adapter
from models.in_context.gguf import as_safetensors, gguf_file, quiet
from models.in_context.recipe import FILE, Recipe, read_recipe, recipe_of
from models.load import SAFE, Weights, folder, weights_in
from models.precision import DType, prepared, pretrained


@dataclass(frozen=True)
class Opened:
    """Weights that were found, and what is to be done with them.

    `path` is the folder of safetensors that is loaded: that of `base`, or what was made of its GGUF file.
    `fingerprint` (16 hex digits) is of weights and adapter, not of the recipe.
    """

    name: str
    recipe: Recipe
    base: Weights
    adapter: Weights | None
    path: Path
    fingerprint: str
    cache: Path | None


def opened(name: str, cache: Path | None) -> Opened:
    """Find what is called `name`; a GGUF file is converted into `cache`, and then found there.

    Raises WeightsMissing, or ValueError for a recipe that says something else than a recipe can, for an
    adapter in place of weights, and for GGUF without a cache.
    """
    place = folder(name)
    if (place / FILE).is_file():
        recipe = read_recipe(place)
        base = named(recipe.model, place, gguf=True)
        adapter = named(recipe.adapter, place) if recipe.adapter else None
    else:
        recipe, base, adapter = recipe_of(name), weights_in(place, name, gguf=True), None
    refuse_adapter(base, FILE)
    total = joint(base.fingerprint, *([] if adapter is None else [adapter.fingerprint]))
    return Opened(name, recipe, base, adapter, _safetensors(base, cache), total, cache)


def load_model(found: Opened, device: str, dtype: DType = "auto") -> tuple[Any, Any]:
    """The decoder, without a language model's head and with its adapter merged, and its tokeniser.

    `dtype` "auto" is bfloat16 where `device` computes in it natively, else float32. Raises ValueError for
    what is no decoder, lacks weights or a tokeniser, or does not go with its adapter.
    """
    _check_decoder(found)
    tokenizer = _tokenizer(found)
    kept = None if found.adapter or _is_rounded(found.path) else found.cache
    path, kind = prepared(replace(found.base, path=found.path), device, dtype, kept)
    with quiet():
        if found.adapter is None:
            return pretrained(AutoModel, path, device, kind), tokenizer
        net = pretrained(AutoModel, path, "cpu", torch.float32)
    return merged(net, read_adapter(found.adapter.name, found.adapter.path), device, kind), tokenizer


def _safetensors(base: Weights, cache: Path | None) -> Path:
    file = gguf_file(base.path)
    if file is None:
        return base.path
    if cache is None:
        raise ValueError(f"{base.name} is a GGUF file, which is converted into a cache, and none is given")
    return as_safetensors(base, cache)


def _check_decoder(found: Opened) -> None:
    try:
        config = AutoConfig.from_pretrained(found.path, local_files_only=True)
    except (OSError, ValueError) as error:
        raise ValueError(f"{found.base.name} has no configuration of a net that is known: {error}") from error
    kind = config.model_type
    if kind not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES or kind in MODEL_FOR_MASKED_LM_MAPPING_NAMES:
        raise ValueError(
            f"{found.base.name} is a {kind}, which is no decoder-only language model; reranking in context "
            "needs one"
        )


def _tokenizer(found: Opened) -> Any:
    try:
        tokenizer = AutoTokenizer.from_pretrained(found.path, local_files_only=True)
    except (OSError, ValueError) as error:
        raise ValueError(f"{found.base.name} has no tokeniser that can be read: {error}") from error
    if not tokenizer.is_fast:
        raise ValueError(
            f"{found.base.name} has no tokenizer.json, without which texts cannot be cut exactly"
        )
    return tokenizer


def _is_rounded(path: Path) -> bool:
    """Whether all matrices in a folder are in bfloat16, so that a rounded copy would be the same."""
    for file in path.rglob(f"*{SAFE}"):
        with safe_open(file, "pt") as tensors:
            slices = (tensors.get_slice(key) for key in tensors.keys())  # noqa: SIM118 - no mapping
            if any(len(each.get_shape()) > 1 and each.get_dtype() != "BF16" for each in slices):
                return False
    return True
