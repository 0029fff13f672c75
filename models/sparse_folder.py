"""From a folder of weights to a net with its tokeniser: which kind of sparse encoder it is, and nothing
guessed.

Read in this order: a `sparse.json` (see `models.sparse_recipe`), the layout of sentence-transformers
(SPLADE, or inference-free: a SPLADE net for documents and a table of weights for questions), a plain
masked-language model (SPLADE with max pooling and a single logarithm). Anything else is refused by name.
Beside a net of the first kind or the last a table may stand too (see `models.idf`).
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sentence_transformers import SparseEncoder as Layout
from sentence_transformers.base.modules import Router, Transformer
from sentence_transformers.sparse_encoder.modules import SparseStaticEmbedding, SpladePooling
from transformers import AutoConfig, AutoTokenizer

from models.idf import own_idf
from models.sparse_heads import Activation
from models.sparse_nets import Net, VocabularyNet, load_net
from models.sparse_recipe import FILE, Recipe, read_recipe

ACTIVATIONS: dict[str, Activation] = {"relu": "log1p", "log1p_relu": "log1p_log1p"}
"""What sentence-transformers calls the activation before its own log1p."""

SPLADE = Recipe(kind="mlm", pooling="max", activation="log1p")


@dataclass(frozen=True)
class Opened:
    """A loaded folder; `idf` are weights of question pieces that came with it, float32, or None."""

    net: Net
    recipe: Recipe
    tokenizer: Any
    max_tokens: int
    idf: NDArray[np.float32] | None = None


def open_folder(path: Path, name: str, device: str, dtype: torch.dtype) -> Opened:
    """Load the sparse encoder in `path`, called `name` in errors; raises ValueError if it is none we know."""
    if (path / FILE).is_file():
        return _plain(path, read_recipe(path), device, dtype)
    if (path / "modules.json").is_file():
        return _layout(path, name, device, dtype)
    _check_head(name, AutoConfig.from_pretrained(path, local_files_only=True))
    return _plain(path, SPLADE, device, dtype)


def _plain(path: Path, recipe: Recipe, device: str, dtype: torch.dtype) -> Opened:
    tokenizer = AutoTokenizer.from_pretrained(path, local_files_only=True)
    net = load_net(path, recipe, device, dtype)
    idf = own_idf(path, tokenizer.backend_tokenizer.get_vocab(), net.body.config.vocab_size)
    return Opened(net, recipe, tokenizer, _limit(net, tokenizer, recipe), idf)


def _layout(path: Path, name: str, device: str, dtype: torch.dtype) -> Opened:
    model = Layout(
        str(path),
        device=device,
        local_files_only=True,
        model_kwargs={"use_safetensors": True, "dtype": dtype},
    )
    if any(model.prompts.values()):
        raise ValueError(f"{name} puts prompts before its texts; say in a {FILE} how they are to be read")
    modules, idf = list(model), None
    if len(modules) == 1 and isinstance(modules[0], Router):
        modules, idf = _routes(modules[0], name)
    match modules:
        case [Transformer() as transformer, SpladePooling() as pooling]:
            recipe = Recipe(
                kind="mlm",
                pooling=pooling.pooling_strategy,
                activation=ACTIVATIONS[pooling.activation_function],
            )
            _check_head(name, transformer.auto_model.config)
            net, tokenizer = VocabularyNet(transformer.auto_model, recipe), transformer.tokenizer
            return Opened(net, recipe, tokenizer, _limit(net, tokenizer, recipe), idf)
    found = " and ".join(type(module).__name__ for module in modules)
    raise ValueError(f"{name} makes its document vectors by {found}, not by Transformer and SpladePooling")


def _limit(net: Net, tokenizer: Any, recipe: Recipe) -> int:
    """How many tokens the net reads: the least of what tokeniser, net and recipe say."""
    positions = getattr(net.body.config, "max_position_embeddings", None)
    limits = (tokenizer.model_max_length, positions, recipe.max_tokens)
    return int(min(limit for limit in limits if limit is not None))


def _check_head(name: str, config: Any) -> None:
    """Raise ValueError unless the weights are those of a masked-language model; its head would be random."""
    found = config.architectures or ["of no named architecture"]
    if not any(each.endswith("ForMaskedLM") for each in found):
        raise ValueError(
            f"{name} is {', '.join(found)}, not a masked-language model. Another sparse encoder says in a "
            f"{FILE} what it is."
        )


def _routes(router: Router, name: str) -> tuple[list[Any], NDArray[np.float32]]:
    """The modules of the document side, and the table of the question side."""
    routes = {kind: list(modules.children()) for kind, modules in router.sub_modules.items()}
    match routes.get("query"):
        case [SparseStaticEmbedding() as table]:
            weights: NDArray[np.float32] = table.weight.detach().float().cpu().numpy()
            return routes.get("document", []), weights
    raise ValueError(f"{name} has a net of its own for questions: only a table of weights is supported")
