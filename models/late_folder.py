"""From a folder of weights to a net of token vectors with its tokeniser: which kind it is, nothing guessed.

Read in this order: a `late.json` (see `models.late_recipe`), which may name a net that is elsewhere, a
`MultiVectorEncoder` of sentence-transformers (ColBERT in its own, PyLate's and Stanford's layout), a dense
encoder of sentence-transformers, a plain encoder. The last two have no head: their token states are the
vectors, which MaxSim ranks well by although nothing trained them for it. Anything else is refused by name.
"""

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from sentence_transformers import MultiVectorEncoder, SentenceTransformer
from sentence_transformers.base.modules import Dense, Normalize, Transformer
from sentence_transformers.multi_vector_encoder.modules import MultiVectorMask
from sentence_transformers.sentence_transformer.modules import Pooling
from tokenizers import AddedToken
from torch import Tensor
from transformers import AutoConfig, AutoModel, AutoTokenizer
from transformers.utils import logging as transformers_logging

from models import Kind
from models.adapter import merged, read_adapter
from models.based import PLAIN, Based, based
from models.dense import PROMPTS
from models.late_gate import Gate, load_gate
from models.late_heads import load_head, unit
from models.late_layout import Fill, Layout, entries, punctuation
from models.late_recipe import FILE, Recipe, read_recipe
from models.load import folder, weights_in
from models.precision import pretrained

Head = Callable[[Tensor], Tensor]
"""States [rows, hidden] in, vectors float32 [rows, dim] of unit length out."""

Pool = Callable[[Tensor, Tensor], Tensor]
"""States [texts, tokens, hidden] and which tokens are looked at in, unit vectors float32 [texts, dim] out."""


@dataclass(frozen=True)
class Opened:
    """A loaded folder: the transformer `body`, its `head`, and how texts are laid out.

    `pool` makes of the same states the vectors of texts that `models.dense` makes by the same net; None where
    that is no dense encoder, was changed, or is given other tokens. `gate` weighs what is kept of passages.
    """

    body: Any
    head: Head
    dim: int
    tokenizer: Any
    layouts: dict[Kind, Layout]
    pool: Pool | None = None
    gate: Gate | None = None


@dataclass(frozen=True)
class States:
    """A transformer without a head, how many tokens it reads, its prompts and its pooling."""

    body: Any
    tokenizer: Any
    most: int
    prompts: dict[Kind, str]
    pool: Pool | None = None

    @property
    def layouts(self) -> dict[Kind, Layout]:
        """How texts are read where nothing is said of it, and all tokens get vectors."""
        return {kind: Layout(self.most, prompt=self.prompts.get(kind, "")) for kind in PROMPTS}


class Stack:
    """The projection of a `MultiVectorEncoder`: one `Dense` module after another."""

    def __init__(self, modules: list[Dense]) -> None:
        self._modules = modules

    def __call__(self, states: Tensor) -> Tensor:
        """See `Head`."""
        features = {"token_embeddings": states}
        for module in self._modules:
            features = module(features)
        return unit(features["token_embeddings"])


def find(name: str) -> Based:
    """The folder called `name`, and what its `late.json` names. Raises WeightsMissing or ValueError."""
    place = folder(name)
    if not (place / FILE).is_file():
        weights = weights_in(place, name)
        return Based(weights, weights)
    recipe = read_recipe(place)
    return based(name, place, FILE, recipe.model, recipe.adapter)


def open_folder(found: Based, path: Path, device: str, dtype: torch.dtype) -> Opened:
    """Load what was found, whose net is in `path`: its own folder, or a copy in another number format.

    Raises ValueError with the name of the weights if it is none we know.
    """
    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    name = found.weights.name
    if (found.weights.path / FILE).is_file():
        return _with_recipe(found, path, device, dtype)
    if _is_multi_vector(path):
        return _multi_vector(name, path, device, dtype)
    states = _states(name, path, device, dtype)
    skip = {"document": punctuation(states.tokenizer.get_vocab())}
    layouts = {
        kind: replace(plain, skip=skip.get(kind, frozenset())) for kind, plain in states.layouts.items()
    }
    hidden = states.body.config.hidden_size
    return Opened(states.body, unit, hidden, states.tokenizer, layouts, states.pool)


def _with_recipe(found: Based, path: Path, device: str, dtype: torch.dtype) -> Opened:
    name, place = found.weights.name, found.weights.path
    recipe, states = read_recipe(place), _adapted(found, path, device, dtype)
    tokenizer, hidden = states.tokenizer, states.body.config.hidden_size
    _register(name, tokenizer, recipe.markers.values())
    layouts = {kind: _recipe_layout(name, recipe, kind, states) for kind in PROMPTS}
    pool = states.pool if _reads_alike(layouts, states.layouts) else None
    dim = hidden if recipe.head is None else recipe.head.dim
    gate = load_gate(place, dim) if recipe.gate else None
    if recipe.head is None:
        return Opened(states.body, unit, hidden, tokenizer, layouts, pool, gate)
    # From the weights as they came: a converted copy has rounded them already, before they are folded.
    head = load_head(place).folded()
    if head.hidden != hidden:
        raise ValueError(f"{name} has states of {hidden} numbers, and its head is for {head.hidden}")
    return Opened(states.body, head.to(device, dtype), dim, tokenizer, layouts, pool, gate)


def _adapted(found: Based, path: Path, device: str, dtype: torch.dtype) -> States:
    """The transformer, with its adapter merged; its states are then those of no dense encoder."""
    if found.adapter is None:
        return _states(found.base.name, path, device, dtype)
    states = _states(found.base.name, path, "cpu", torch.float32)
    body = merged(states.body, read_adapter(found.adapter.name, found.adapter.path), device, dtype)
    return replace(states, body=body, pool=None)


def _reads_alike(layouts: dict[Kind, Layout], plain: dict[Kind, Layout]) -> bool:
    """Whether the net is given the same tokens by both, whichever of them get vectors."""
    return {kind: replace(layout, skip=frozenset()) for kind, layout in layouts.items()} == plain


def _recipe_layout(name: str, recipe: Recipe, kind: Kind, states: States) -> Layout:
    marker, prompt = recipe.markers.get(kind, ""), recipe.prompts.get(kind, "")
    tokenizer, most = states.tokenizer, min(states.most, recipe.max_tokens or states.most)
    if kind == "document":
        punctuated = recipe.skip == "punctuation"
        vocabulary = tokenizer.get_vocab()
        skip = punctuation(vocabulary) if punctuated else _known(name, tokenizer, recipe.skip)
        return Layout(most, marker, prompt, skip)
    length = recipe.query_length
    if length is None:
        return Layout(most, marker, prompt)
    if length > states.most:
        raise ValueError(f"{name} reads {states.most} tokens, and its questions are to have {length}")
    (token,) = _known(name, tokenizer, [recipe.fill or tokenizer.mask_token or ""])
    return Layout(length, marker, prompt, fill=Fill(token, length, recipe.attend))


def _known(name: str, tokenizer: Any, words: Iterable[str]) -> frozenset[int]:
    """The numbers of vocabulary entries; raises ValueError for what is none."""
    words = list(words)
    for word in words:
        if not entries(tokenizer, [word]):
            raise ValueError(f"{name} has no {word!r} in its vocabulary")
    return entries(tokenizer, words)


def _register(name: str, tokenizer: Any, markers: Iterable[str]) -> None:
    """Have the tokeniser keep markers whole."""
    wanted = [marker for marker in markers if marker]
    _known(name, tokenizer, wanted)
    tokenizer.add_special_tokens(
        {"additional_special_tokens": [AddedToken(each, normalized=False, special=True) for each in wanted]}
    )


def _is_multi_vector(path: Path) -> bool:
    """Whether sentence-transformers, PyLate or Stanford's library wrote this as a multi-vector encoder."""
    said = _json(path / "config_sentence_transformers.json").get("model_type")
    architectures = _json(path / "config.json").get("architectures") or []
    return said in ("MultiVectorEncoder", "ColBERT") or (said is None and "HF_ColBERT" in architectures)


def _multi_vector(name: str, path: Path, device: str, dtype: torch.dtype) -> Opened:
    model = MultiVectorEncoder(
        str(path),
        device=device,
        local_files_only=True,
        model_kwargs={"use_safetensors": True, "dtype": dtype},
    ).eval()
    transformer, *rest = model
    dense = [each for each in rest if isinstance(each, Dense)]
    masks = [each for each in rest if isinstance(each, MultiVectorMask)]
    lengths = [each for each in rest if isinstance(each, Normalize)]
    if (
        not isinstance(transformer, Transformer)
        or (len(masks), len(lengths)) != (1, 1)
        or len(rest) != len(dense) + 2
    ):
        found = ", ".join(type(module).__name__ for module in model)
        raise ValueError(f"{name} is {found}, not Transformer, Dense, MultiVectorMask and Normalize")
    _check_text(name, transformer)
    if masks[0].keep_only_token_ids:
        raise ValueError(f"{name} keeps some tokens of its documents only, as models of images do")
    if any((each.module_input_name, each.module_output_name) != 2 * ("token_embeddings",) for each in dense):
        raise ValueError(f"{name} has a projection of something else than its token states")
    layouts = {kind: _model_layout(model, transformer, masks[0], kind) for kind in PROMPTS}
    head = Stack([each.to(device, dtype) for each in dense])
    return Opened(
        transformer.auto_model, head, int(model.get_embedding_dimension() or 0), model.tokenizer, layouts
    )


def _model_layout(model: Any, transformer: Transformer, mask: MultiVectorMask, kind: Kind) -> Layout:
    """What `Transformer.preprocess` and `MultiVectorMask` do with questions or with documents."""
    tokenizer, most = model.tokenizer, _limit(transformer.auto_model, model.tokenizer)
    marker = model.prompts.get(kind) or ""
    skip = entries(tokenizer, mask.skiplist_words if kind in mask.skiplist_tasks else ())
    if kind == "document":
        return Layout(min(most, transformer.document_length or most), marker, skip=skip)
    most, told = min(most, transformer.query_length or most), transformer.query_expansion
    if told is None:
        return Layout(most, marker, skip=skip)
    length, spelled = told["length"], told["token"] or tokenizer.mask_token or tokenizer.eos_token
    fill = Fill(tokenizer.convert_tokens_to_ids(spelled), length, told["attend"])
    return Layout(length if told["strategy"] == "fixed" else max(most, length), marker, skip=skip, fill=fill)


def _states(name: str, path: Path, device: str, dtype: torch.dtype) -> States:
    """The transformer of a dense encoder, or of a plain folder."""
    if (path / "modules.json").is_file():
        return _of_dense(name, path, device, dtype)
    config = AutoConfig.from_pretrained(path, local_files_only=True)
    found = config.architectures or ["of no named architecture"]
    if config.is_encoder_decoder or not all(each.endswith(PLAIN) for each in found):
        raise ValueError(f"{name} is {', '.join(found)}, not an encoder whose token states are vectors")
    body = pretrained(AutoModel, path, device, dtype)
    tokenizer = AutoTokenizer.from_pretrained(path, local_files_only=True)
    return States(body, tokenizer, _limit(body, tokenizer), {})


def _of_dense(name: str, path: Path, device: str, dtype: torch.dtype) -> States:
    said = _json(path / "config_sentence_transformers.json").get("model_type")
    if said not in (None, "SentenceTransformer"):
        raise ValueError(f"{name} is a {said}, not an encoder whose token states are vectors")
    model = SentenceTransformer(
        str(path),
        device=device,
        local_files_only=True,
        model_kwargs={"use_safetensors": True, "dtype": dtype},
    ).eval()
    if not isinstance(model[0], Transformer) or not any(isinstance(each, Pooling) for each in model):
        found = ", ".join(type(module).__name__ for module in model)
        raise ValueError(f"{name} is {found}, which does not begin with a transformer and its pooling")
    _check_text(name, model[0])
    prompts = {
        kind: next((prompt for each in names if (prompt := model.prompts.get(each))), "")
        for kind, names in PROMPTS.items()
    }
    body = model[0].auto_model
    return States(body, model.tokenizer, _limit(body, model.tokenizer), prompts, _pooling(model))


def _pooling(model: SentenceTransformer) -> Pool:
    """What follows the transformer of a dense encoder."""
    modules = list(model)[1:]

    def pool(states: Tensor, looked: Tensor) -> Tensor:
        features = {"token_embeddings": states, "attention_mask": looked}
        for module in modules:
            features = module(features)
        return unit(features["sentence_embedding"])

    return pool


def _check_text(name: str, transformer: Transformer) -> None:
    """Raise ValueError if texts are more than tokenised before the transformer reads them."""
    if "message" in transformer.modality_config or transformer.processing_kwargs:
        raise ValueError(f"{name} changes texts by a template or settings of its own, which is not supported")


def _limit(body: Any, tokenizer: Any) -> int:
    """How many tokens the net reads."""
    positions = getattr(body.config, "max_position_embeddings", None)
    return int(min(limit for limit in (tokenizer.model_max_length, positions) if limit is not None))


def _json(file: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(file.read_bytes()) if file.is_file() else {}
    return found
