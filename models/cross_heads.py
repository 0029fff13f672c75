"""What turns an encoder into a cross-encoder: a small head beside weights that have none.

`head.safetensors` in a folder with a `cross.json` holds the head of `BertForSequenceClassification`
(Nogueira and Cho 2019, arXiv 1901.04085), over the state h of the token that begins a pair:

    logit = classifier.weight [1, d] · tanh(pooler.weight [d, d] · h + pooler.bias [d]) + classifier.bias [1]

It may hold a second head over the states of all tokens, which says of those of the document whether they
are dropped or kept (see `models.cross_keep`): `keep.weight` [2, d] and `keep.bias` [2], of dropping first.

All of it computes in float32, whatever the encoder computes in: eight bits of a logit would make ties of
good passages.
"""

from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

FILE = "head.safetensors"


class Scored(NamedTuple):
    """What a net says of a batch: `logits` float32 [texts, 1] and, of tokens, `keep` [texts, longest, 2]."""

    logits: Tensor
    keep: Tensor | None


class Headed(nn.Module):
    """An encoder with a head; called like a sequence classifier of `transformers`."""

    def __init__(self, body: Any, head: dict[str, Tensor]) -> None:
        super().__init__()
        self.body = body
        width = body.config.hidden_size
        self.pooler = _linear(width, width, head, "pooler")
        self.classifier = _linear(width, 1, head, "classifier")
        self.keep = _linear(width, 2, head, "keep") if "keep.weight" in head else None
        self.to(body.device).eval().requires_grad_(False)

    def forward(self, **inputs: Tensor) -> Scored:
        """Ids, mask and kinds of tokens, int64 [texts, longest]."""
        states = self.body(**inputs).last_hidden_state
        logits = self.classifier(self.pooler(states[:, 0].float()).tanh())
        return Scored(logits, None if self.keep is None else self.keep(states.float()))

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return self.body.device  # type: ignore[no-any-return]

    @property
    def dtype(self) -> torch.dtype:
        """The number format of the encoder."""
        return self.body.dtype  # type: ignore[no-any-return]

    def get_input_embeddings(self) -> nn.Module:
        """Those of the encoder."""
        return self.body.get_input_embeddings()  # type: ignore[no-any-return]


def read_head(folder: Path, width: int) -> dict[str, Tensor]:
    """The tensors of the head in a folder, in float32, for states of `width` numbers.

    Raises ValueError for other tensors than those named above.
    """
    file = folder / FILE
    tensors = load_file(file)
    found = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    wanted = {
        "pooler.weight": (width, width),
        "pooler.bias": (width,),
        "classifier.weight": (1, width),
        "classifier.bias": (1,),
    }
    keep = {"keep.weight": (2, width), "keep.bias": (2,)}
    if found not in (wanted, {**wanted, **keep}):
        raise ValueError(
            f"{file} should hold tensors of shapes {wanted}, with {keep} or without, but holds {found}"
        )
    return {name: tensor.float() for name, tensor in tensors.items()}


def _linear(inputs: int, outputs: int, tensors: dict[str, Tensor], name: str) -> nn.Linear:
    with torch.device("meta"):
        layer = nn.Linear(inputs, outputs)
    layer.load_state_dict({key: tensors[f"{name}.{key}"] for key in ("weight", "bias")}, assign=True)
    return layer
