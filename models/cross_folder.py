"""From a folder of weights to a cross-encoder with its tokeniser, and nothing guessed.

A `CrossEncoder` of sentence-transformers is a sequence classifier of `transformers` with one label, and an
activation that is named in one of three places, by version. A folder that would make it do anything more
(modules after the transformer, prompts, a tokeniser that it changes) is refused by name, since scores would
look no less plausible without.

A `cross.json` in a folder may name an encoder that is elsewhere, and a `head.safetensors` beside it makes a
cross-encoder of it (see `models.cross_heads`).
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor
from transformers import AutoConfig, AutoModel, AutoModelForSequenceClassification, AutoTokenizer

from models.adapter import merged, read_adapter
from models.based import PLAIN, Based, based
from models.cross_heads import FILE as HEAD
from models.cross_heads import Headed, read_head
from models.cross_recipe import FILE, told
from models.load import folder, weights_in
from models.precision import pretrained

Activation = Literal["sigmoid", "identity"]

ACTIVATIONS: dict[str, Activation] = {"Sigmoid": "sigmoid", "Identity": "identity"}
"""Of torch.nn, by the last part of their name."""

TRANSFORMER = frozenset({"transformer_task", "modality_config", "module_output_name", "max_seq_length"})
"""Keys of `sentence_bert_config.json` that say what is done here anyway, or that are read."""

ENCODERS = (*PLAIN, "ForSequenceClassification")
"""How the architectures end that a head beside them can be for."""

LONGEST = 100_000
"""A tokeniser that cuts to more tokens than this never cuts."""


@dataclass(frozen=True)
class Opened:
    """A loaded folder; `net` gives `logits` [texts, 1] in float32.

    `typed` says that it is told which tokens are the question's and which the document's.
    """

    net: Any
    tokenizer: Any
    max_tokens: int
    activation: Activation
    typed: bool


class Float32Linear(torch.nn.Module):
    """The last layer, in float32 whatever the others compute in.

    Eight bits of a logit would make ties of good passages.
    """

    def __init__(self, linear: torch.nn.Linear) -> None:
        super().__init__()
        self.linear = linear.float()

    def forward(self, states: Tensor) -> Tensor:
        """Logits of states in any number format."""
        logits: Tensor = self.linear(states.float())
        return logits


def find(name: str) -> Based:
    """The folder called `name`, and what its `cross.json` names. Raises WeightsMissing or ValueError."""
    place = folder(name)
    if not (place / FILE).is_file():
        weights = weights_in(place, name)
        return Based(weights, weights)
    recipe = told(place)
    return based(name, place, FILE, recipe.model, recipe.adapter)


def open_folder(found: Based, path: Path, device: str, dtype: torch.dtype) -> Opened:
    """Load what was found, whose net is in `path`: its own folder, or a copy in another number format.

    Raises ValueError with the name of the weights if it is no cross-encoder.
    """
    if (found.weights.path / HEAD).is_file():
        return with_head(found, path, device, dtype)
    name = found.base.name
    config = AutoConfig.from_pretrained(path, local_files_only=True)
    _check_head(name, config)
    given = _check_modules(path, name)
    activation = _activation(path, name)
    tokenizer = AutoTokenizer.from_pretrained(path, local_files_only=True)
    limit = _limit(name, tokenizer, config, given.get("max_seq_length"))
    net = _adapted(found, AutoModelForSequenceClassification, path, device, dtype, pooler=True)
    _raise_precision(net)
    return Opened(net, tokenizer, limit, activation, _typed(tokenizer))


def with_head(
    found: Based,
    path: Path,
    device: str,
    dtype: torch.dtype,
    begun: Callable[[int], dict[str, Tensor]] | None = None,
) -> Opened:
    """An encoder that says nothing of pairs, and what makes scores of its states: the head of the folder, or
    one that is `begun` for states of so many numbers. See `open_folder`.
    """
    name, path = found.base.name, _transformer(path)
    config = AutoConfig.from_pretrained(path, local_files_only=True)
    architectures = config.architectures or ["of no named architecture"]
    if config.is_encoder_decoder or not all(each.endswith(ENCODERS) for each in architectures):
        raise ValueError(f"{name} is {', '.join(architectures)}, not an encoder that a {HEAD} can be for")
    tokenizer = AutoTokenizer.from_pretrained(path, local_files_only=True)
    limit = _limit(name, tokenizer, config, None)
    body = _adapted(found, AutoModel, path, device, dtype)
    width = config.hidden_size
    head = read_head(found.weights.path, width) if begun is None else begun(width)
    net = Headed(body, head)
    typed = _typed(tokenizer) and getattr(config, "type_vocab_size", 0) > 1
    return Opened(net, tokenizer, limit, "sigmoid", typed)


def _adapted(
    found: Based, kind: Any, path: Path, device: str, dtype: torch.dtype, *, pooler: bool = False
) -> Any:
    if found.adapter is None:
        return pretrained(kind, path, device, dtype, pooler=pooler)
    net = pretrained(kind, path, "cpu", torch.float32, pooler=pooler)
    return merged(net, read_adapter(found.adapter.name, found.adapter.path), device, dtype)


def _transformer(path: Path) -> Path:
    """Where in the folder of an encoder its transformer is."""
    modules = _read(path / "modules.json", [])
    return path / modules[0]["path"] if modules else path


def _typed(tokenizer: Any) -> bool:
    return "token_type_ids" in tokenizer.model_input_names


def _check_head(name: str, config: Any) -> None:
    architectures = config.architectures or ["of no named architecture"]
    if not architectures[0].endswith("ForSequenceClassification"):
        raise ValueError(
            f"{name} is {', '.join(architectures)}, not a cross-encoder: it has no head that scores pairs"
        )
    if config.num_labels != 1:
        raise ValueError(
            f"{name} tells {config.num_labels} classes apart; a cross-encoder has one label, the score of a "
            "pair"
        )


def _check_modules(path: Path, name: str) -> dict[str, Any]:
    """What the folder says of its transformer; ValueError for what would be done beyond it."""
    kinds = [each["type"].rpartition(".")[2] for each in _read(path / "modules.json", [])]
    if kinds not in ([], ["Transformer"]):
        raise ValueError(f"{name} scores pairs by {' and '.join(kinds)}, not by one Transformer")
    saved = _read(path / "config_sentence_transformers.json", {})
    if saved.get("prompts", {}).get(saved.get("default_prompt_name")):
        raise ValueError(f"{name} puts a prompt before its pairs, which is not supported")
    given: dict[str, Any] = _read(path / "sentence_bert_config.json", {})
    if more := sorted(key for key, value in given.items() if key not in TRANSFORMER and value):
        raise ValueError(f"{name} asks in sentence_bert_config.json for {', '.join(more)}: not supported")
    return given


def _activation(path: Path, name: str) -> Activation:
    """What is made of logits: of the places where sentence-transformers looks for it, the first that says."""
    config = _read(path / "config.json", {})
    modular = _read(path / "config_sentence_transformers.json", {}) if _has_modules(path) else {}
    saved = (
        modular.get("activation_fn")
        or config.get("sentence_transformers", {}).get("activation_fn")
        or config.get("sbert_ce_default_activation_function")
        or "torch.nn.Sigmoid"
    )
    package, _, last = saved.rpartition(".")
    if not f"{package}.".startswith("torch.nn.") or last not in ACTIVATIONS:
        raise ValueError(f"{name} makes scores by {saved}; known are {' and '.join(ACTIVATIONS)} of torch.nn")
    return ACTIVATIONS[last]


def _has_modules(path: Path) -> bool:
    return (path / "modules.json").is_file()


def _limit(name: str, tokenizer: Any, config: Any, wanted: int | None) -> int:
    """How many tokens a pair may have: the least of what tokeniser, net and folder say."""
    positions = getattr(config, "max_position_embeddings", None)
    limits = [
        each for each in (tokenizer.model_max_length, positions, wanted) if each is not None and each > 0
    ]
    if (limit := int(min(limits))) > LONGEST:
        raise ValueError(
            f"{name} does not say how many tokens it reads: put model_max_length into tokenizer_config.json"
        )
    return limit


def _raise_precision(net: Any) -> None:
    """Let the layer that gives the one logit compute in float32."""
    heads = [
        path
        for path, module in net.named_modules()
        if isinstance(module, torch.nn.Linear) and module.out_features == 1
    ]
    if len(heads) != 1:
        raise ValueError(f"{type(net).__name__} has {len(heads)} layers that could give its score, not one")
    net.set_submodule(heads[0], Float32Linear(net.get_submodule(heads[0])))


def _read(file: Path, default: Any) -> Any:
    return json.loads(file.read_bytes()) if file.is_file() else default
