"""Where relevance is read: which heads of which layers, from which tokens of the question, against what.

Three read-outs, which are data. `blockrank` (Gupta et al., arXiv 2510.05396, section 3): attention of the
tokens that the answer begins with, at one layer, over the documents' tokens only, mean of all heads. `icr`
(Chen, Gutiérrez and Su, "Attention in Large Language Models Yields Efficient Zero-Shot Re-Rankers", ICLR
2025): attention of all words of the question, of all heads and layers, over everything, less what a question
without content gets from the same documents; tokens that are then two deviations below their document's mean
do not count. `heads` (QRHead, Zhang et al., arXiv 2506.09944; CoRe heads, Tran et al., arXiv 2510.02219): as
`icr`, of heads that were chosen on judged questions, each over the documents' tokens with a temperature.

A word of a question has read those before it and none behind it, so the later ones know better what is
asked. `later` lets them count for more: the i-th of n by (i / n) ** later, of which 0 is the plain mean.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Signal = Literal["answer", "words"]
Head = tuple[int, int, float]  # layer, head, weight


@dataclass(frozen=True)
class BlockRank:
    """The paper's read-out at l*."""

    kind: ClassVar[str] = "blockrank"
    over: ClassVar[Literal["documents", "everything"]] = "documents"
    robust: ClassVar[bool] = False
    temperature: ClassVar[float] = 1.0
    later: ClassVar[float] = 0.0

    signal: Signal = "answer"
    calibrate: bool = False

    def weights(self, last: int, heads: int) -> dict[int, list[float]]:
        """Weight of every head, by layer."""
        return {last: [1 / heads] * heads}

    def at(self, layer: int) -> "BlockRank":
        """What of this read-out a single layer has."""
        return self


@dataclass(frozen=True)
class Icr:
    """All heads of some layers, by default of all up to l*; calibrated."""

    kind: ClassVar[str] = "icr"
    over: ClassVar[Literal["documents", "everything"]] = "everything"
    robust: ClassVar[bool] = True
    temperature: ClassVar[float] = 1.0
    later: ClassVar[float] = 0.0
    signal: ClassVar[Signal] = "words"
    calibrate: ClassVar[bool] = True

    layers: tuple[int, ...] | None = None

    def weights(self, last: int, heads: int) -> dict[int, list[float]]:
        """Weight of every head, by layer."""
        layers = range(last + 1) if self.layers is None else self.layers
        return {layer: [1.0] * heads for layer in layers}

    def at(self, layer: int) -> "Icr":
        """What of this read-out a single layer has."""
        if self.layers is not None and layer not in self.layers:
            raise ValueError(f"the read-out has layers {list(self.layers)} and not {layer}")
        return replace(self, layers=(layer,))


@dataclass(frozen=True)
class Heads:
    """Heads that were chosen, with their weights."""

    kind: ClassVar[str] = "heads"
    over: ClassVar[Literal["documents", "everything"]] = "documents"
    robust: ClassVar[bool] = False

    heads: tuple[Head, ...]
    temperature: float = 1.0
    calibrate: bool = True
    signal: Signal = "words"
    later: float = 0.0

    def __post_init__(self) -> None:
        if not self.heads:
            raise ValueError("a read-out of chosen heads needs one at least")
        if not self.temperature > 0:
            raise ValueError(f"the temperature of heads must be above 0, not {self.temperature}")
        if not self.later >= 0:
            raise ValueError(f"later is 0 or more, not {self.later}")

    def weights(self, last: int, heads: int) -> dict[int, list[float]]:
        """Weight of every head, by layer."""
        found: dict[int, list[float]] = {}
        for layer, head, weight in self.heads:
            if not (0 <= layer <= last and 0 <= head < heads):
                raise ValueError(
                    f"the read-out names head {head} of layer {layer}; the net has heads 0 to {heads - 1} "
                    f"and runs to layer {last}"
                )
            found.setdefault(layer, [0.0] * heads)[head] += weight
        return found

    def at(self, layer: int) -> "Heads":
        """What of this read-out a single layer has. ValueError for none."""
        kept = tuple(head for head in self.heads if head[0] == layer)
        if not kept:
            layers = sorted({head[0] for head in self.heads})
            raise ValueError(f"the read-out has heads of layers {layers} and none of layer {layer}")
        return replace(self, heads=kept)


ReadOut = BlockRank | Icr | Heads

_FIELDS: Mapping[str, tuple[str, ...]] = {
    "blockrank": ("signal", "calibrate"),
    "icr": ("layers",),
    "heads": ("heads", "temperature", "calibrate", "signal", "later"),
}


def read_out_from_json(value: Any) -> ReadOut:
    """The read-out that a JSON object describes. ValueError for anything else, by name."""
    if not isinstance(value, dict) or value.get("kind") not in _FIELDS:
        raise ValueError(f"a read-out is an object whose kind is one of {', '.join(_FIELDS)}, not {value!r}")
    kind, fields = value["kind"], {name: each for name, each in value.items() if name != "kind"}
    if unknown := sorted(set(fields) - set(_FIELDS[kind])):
        raise ValueError(
            f"the read-out {kind} has no {', '.join(unknown)}; it has {', '.join(_FIELDS[kind])}"
        )
    if fields.get("signal", "words") not in ("answer", "words"):
        raise ValueError(f"signal is 'answer' or 'words', not {fields['signal']!r}")
    for name in ("temperature", "later"):
        if not _finite(fields.get(name, 1.0)):
            raise ValueError(f"{name} is a number, not {fields[name]!r}")
    if not isinstance(fields.get("calibrate", True), bool):
        raise ValueError(f"calibrate is true or false, not {fields['calibrate']!r}")
    if kind == "heads":
        return Heads(**{**fields, "heads": _heads(fields.get("heads"))})
    if kind == "icr":
        return Icr(_layers(fields.get("layers")))
    return BlockRank(**fields)


def read_out_to_json(read: ReadOut) -> dict[str, Any]:
    """The JSON object of a read-out."""
    return {"kind": read.kind, **{name: getattr(read, name) for name in _FIELDS[read.kind]}}


def _layers(value: Any) -> tuple[int, ...] | None:
    if value is None:
        return None
    if not isinstance(value, list | tuple) or not value or not all(map(_whole, value)):
        raise ValueError(f"layers are a list of whole numbers, one at least, not {value!r}")
    return tuple(value)


def _heads(value: Any) -> tuple[Head, ...]:
    triples = isinstance(value, list | tuple) and all(
        isinstance(head, list | tuple) and len(head) == 3 and _whole(head[0]) and _whole(head[1])
        for head in value
    )
    if not triples or not all(_finite(head[2]) for head in value):
        raise ValueError(f"heads are triples of layer, head and weight, not {value!r}")
    return tuple((layer, head, float(weight)) for layer, head, weight in value)


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _finite(value: Any) -> bool:
    return (_whole(value) or isinstance(value, float)) and math.isfinite(value)


@dataclass(frozen=True)
class Drop:
    """Early document dropping: at layer `layer` the share `keep` of the documents stay, best first."""

    layer: int
    keep: float

    def __post_init__(self) -> None:
        if not 0 < self.keep <= 1:
            raise ValueError(f"the share of documents kept is above 0 and at most 1, not {self.keep}")

    def kept(self, scores: NDArray[np.floating]) -> list[int]:
        """Positions of the documents that stay, ascending: one at least, of equal ones the first."""
        number = max(1, round(self.keep * len(scores)))
        return sorted(np.argsort(-scores, kind="stable")[:number].tolist())


@dataclass(frozen=True, eq=False)
class Reading:
    """What a question's attention says: a score for each document, and of each of its tokens the part in it.

    scores float32 [documents]; tokens float32 [t] for each document, of which its score is the sum, except
    for documents that were dropped early, whose tokens are of the layer where they were. float64 of a net in
    that.
    """

    scores: NDArray[np.floating]
    tokens: tuple[NDArray[np.floating], ...]

    @classmethod
    def of(cls, mass: Tensor, lengths: Sequence[int], robust: bool) -> Self:
        """Of the tokens' attention, float32 [sum(lengths)]."""
        tokens = torch.split(mass.cpu(), list(lengths))
        if robust:
            tokens = tuple(_without_outliers(each) for each in tokens)
        scores = torch.stack([each.sum() for each in tokens])
        return cls(scores.numpy(), tuple(each.numpy() for each in tokens))


def mass(
    queries: Tensor,
    keys: Tensor,
    weights: Tensor,
    scale: float,
    hidden: Tensor | None = None,
    later: float = 0.0,
) -> Tensor:
    """Attention of some tokens of a question, weighted over these and over heads: float32 [t].

    queries [heads, signal, head_dim], keys [kv_heads, t, head_dim], weights float32 [heads]; `scale` goes
    before the softmax over t. hidden bool [signal, t] says which keys a token does not see. Heads without
    weight cost nothing.
    """
    used = weights.nonzero()[:, 0]
    group = queries.shape[0] // keys.shape[0]
    logits = wide(torch.matmul(queries[used], keys[used // group].transpose(1, 2))) * scale
    if hidden is not None:
        logits = logits.masked_fill(hidden, -torch.inf)
    rows = parts(queries.shape[1], later).to(logits)
    attention = torch.einsum("r,hrt->ht", rows, logits.softmax(-1))
    return weights[used].to(attention.dtype) @ attention


def parts(rows: int, later: float) -> Tensor:
    """What each of a question's tokens counts, by its place: float32 [rows], summing to one."""
    places = torch.arange(1, rows + 1, dtype=torch.float32) / rows
    return places**later / (places**later).sum()


def wide(tensor: Tensor) -> Tensor:
    """The same in float32 at the least."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


def _without_outliers(tokens: Tensor) -> Tensor:
    """The same with 0 for tokens more than two deviations below the mean."""
    if len(tokens) < 2:
        return tokens
    return tokens.where(tokens >= tokens.mean() - 2 * tokens.std(), 0.0)
