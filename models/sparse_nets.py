"""The nets of learned sparse encoders: token ids in, a weight per vocabulary entry out.

A net is a transformer of `transformers` without its last layer, and what `models.sparse_heads` makes of its
states. The projection to the vocabulary is taken off, because it is most of the work for short texts and done
in stretches here, or at one position only. Weights that a folder lacks would be random: they are refused.
"""

from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoModel, AutoModelForCausalLM, AutoModelForMaskedLM

from models.precision import pretrained
from models.sparse_heads import Projection, activate, at_last, literal_residual, own_terms, pool_projected
from models.sparse_recipe import Recipe


class Net(Protocol):
    """A net on a device; `config` and `dtype` are those of its transformer."""

    body: Any

    def __call__(self, ids: Tensor, real: Tensor, voting: Tensor) -> Tensor:
        """Weights float32 [texts, vocabulary] of a batch.

        `ids` int64, `real` (not padding) and `voting` bool are [texts, positions].
        """
        ...


class VocabularyNet:
    """The head of a language model, masked (SPLADE) or causal (Mistral-SPLADE, arXiv 2408.11119)."""

    def __init__(self, whole: Any, recipe: Recipe) -> None:
        self.body, self._projection = split(whole)
        self._recipe = recipe

    def __call__(self, ids: Tensor, real: Tensor, voting: Tensor) -> Tensor:
        """See `Net`."""
        states = self.body(input_ids=ids, attention_mask=real.long()).logits
        pooling = self._recipe.pooling
        voters = real if pooling == "last" else voting
        return pool_projected(states, voters, self._projection, pooling, self._recipe.activation)


class TermNet:
    """Weights `f(a·h_i + b)` of a text's own pieces (uniCOIL, arXiv 2106.14807)."""

    def __init__(self, body: Any, head: dict[str, Tensor], recipe: Recipe) -> None:
        self.body = body
        self._direction, self._bias = head["a"], head["b"]
        self._recipe = recipe

    def __call__(self, ids: Tensor, real: Tensor, voting: Tensor) -> Tensor:
        """See `Net`."""
        states = self.body(input_ids=ids, attention_mask=real.long()).last_hidden_state
        weights = activate(states.float() @ self._direction + self._bias, self._recipe.activation)
        return own_terms(ids, weights, voting, self.body.config.vocab_size)


class ProsperNet:
    """A causal model's head at the last position, and what lifts the text's own terms (arXiv 2510.18527)."""

    def __init__(self, whole: Any, head: dict[str, Tensor], recipe: Recipe) -> None:
        self.body, self._projection = split(whole)
        self._weight, self._bias = head["fc.weight"], head["fc.bias"]
        self._recipe = recipe

    def __call__(self, ids: Tensor, real: Tensor, voting: Tensor) -> Tensor:
        """See `Net`."""
        last = at_last(self.body(input_ids=ids, attention_mask=real.long()).logits, real)
        base = activate(self._projection(last), self._recipe.activation)
        squashed = activate(last, "log1p").to(self._weight.dtype)
        compensation = (squashed @ self._weight.T).float() + self._bias
        literal = own_terms(ids, torch.ones_like(ids, dtype=torch.float32), voting, base.shape[1])
        return literal_residual(base, compensation, literal > 0)


def load_net(path: Path, recipe: Recipe, device: str, dtype: torch.dtype) -> Net:
    """The net of a folder by its recipe; raises ValueError if weights are missing or of another shape."""
    if recipe.kind == "mlm":
        return VocabularyNet(pretrained(AutoModelForMaskedLM, path, device, dtype), recipe)
    if recipe.kind == "decoder":
        return VocabularyNet(pretrained(AutoModelForCausalLM, path, device, dtype), recipe)
    body = pretrained(AutoModel if recipe.kind == "mlp" else AutoModelForCausalLM, path, device, dtype)
    hidden, vocabulary = body.config.hidden_size, body.config.vocab_size
    if recipe.kind == "mlp":
        return TermNet(body, _head(path / recipe.weights, {"a": (hidden,), "b": (1,)}, body), recipe)
    shapes = {"fc.weight": (vocabulary, hidden), "fc.bias": (vocabulary,)}
    return ProsperNet(body, _head(path / recipe.weights, shapes, body), recipe)


def split(whole: Any) -> tuple[Any, Projection]:
    """A language model whose `logits` are now the states before the projection, and the projection.

    Raises ValueError if logits are more than the projection of these states (scaled or capped, as some are).
    """
    linear = whole.get_output_embeddings()
    name = next((name for name, module in whole.named_modules() if module is linear), None)
    if name is None or not isinstance(linear, torch.nn.Linear):
        raise ValueError(f"{type(whole).__name__} has no projection to a vocabulary")
    projection = Projection(linear.weight, linear.bias)
    probe = {"input_ids": torch.arange(1, 5, device=whole.device)[None]}
    with torch.inference_mode():
        expected = whole.eval()(**probe).logits
        whole.set_submodule(name, torch.nn.Identity())
        found = projection(whole(**probe).logits)
    if not torch.equal(expected, found):
        raise ValueError(f"{type(whole).__name__} changes its logits after the projection: not supported")
    return whole, projection


def _head(file: Path, shapes: dict[str, tuple[int, ...]], body: Any) -> dict[str, Tensor]:
    """Our own tensors beside the transformer: vectors in float32, matrices in its number format.

    Raises ValueError unless they have these shapes.
    """
    tensors = load_file(file) if file.is_file() else {}
    found = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    if found != shapes:
        raise ValueError(f"{file} should hold tensors of shapes {shapes}, but holds {found}")
    return {
        name: tensor.to(body.device, body.dtype if tensor.ndim > 1 else torch.float32)
        for name, tensor in tensors.items()
    }
