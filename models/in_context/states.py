"""What a net keeps of documents that it has read, and how a question's forward gets at it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor


@dataclass(frozen=True, eq=False)
class States:
    """Keys and values of one document of t tokens, on the device and in the number format of the net.

    keys [layers + 1, kv_heads, t, head_dim] of the layers 0 to l*, rotated to their positions; values
    [layers, kv_heads, t, head_dim] of the layers below l*, where layers = l*.
    """

    keys: Tensor
    values: Tensor

    @property
    def tokens(self) -> int:
        """How many tokens the document has."""
        return int(self.keys.shape[2])


class Source(Protocol):
    """Documents that were read before, in the order of the candidates."""

    @property
    def lengths(self) -> Sequence[int]:
        """Tokens of each document, none of them 0."""
        ...

    def fill(self, layer: int, keys: Tensor, values: Tensor | None) -> None:
        """Write what `layer` has of all documents, one behind the other: each [kv_heads, sum(lengths),
        head_dim].

        Both are views of a larger buffer, contiguous in the last two dimensions. Values are not wanted of l*.
        """
        ...

    def take(self, documents: Sequence[int]) -> "Source":
        """Some of the documents, in the order given."""
        ...


class Joined:
    """Documents as the net gave them."""

    def __init__(self, states: Sequence[States]) -> None:
        self._states = states
        self.lengths = [each.tokens for each in states]

    def fill(self, layer: int, keys: Tensor, values: Tensor | None) -> None:
        """See Source."""
        at = 0
        for each in self._states:
            end = at + each.tokens
            keys[:, at:end] = each.keys[layer]
            if values is not None:
                values[:, at:end] = each.values[layer]
            at = end

    def take(self, documents: Sequence[int]) -> "Joined":
        """See Source."""
        return Joined([self._states[number] for number in documents])
