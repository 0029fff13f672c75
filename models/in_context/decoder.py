"""A decoder of transformers, run in parts: some layers, some of a prompt, as far as is needed and no
further.
"""

from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from typing import Any, Self, cast

import torch
from torch import Tensor
from torch.nn import Identity, ModuleList

from models.in_context.attention import NAME, Pass, Reached, Reader
from models.in_context.batches import Backend, Texts, backend
from models.in_context.states import States
from models.packing import pack


@dataclass(frozen=True, eq=False)
class Read:
    """One text as far as it was read: keys and values by layer [kv_heads, t, head_dim], and its states [t,
    hidden] if it can be read on from there.
    """

    keys: Mapping[int, Tensor]
    values: Mapping[int, Tensor]
    hidden: Tensor | None

    @classmethod
    def of(cls, reader: Reader, row: int, tokens: slice, hidden: Tensor | None) -> Self:
        """Some tokens of a row of a batch."""
        return cls(
            {layer: each[row, :, tokens] for layer, each in reader.keys.items()},
            {layer: each[row, :, tokens] for layer, each in reader.values.items()},
            None if hidden is None else hidden[row, tokens],
        )

    def states(self) -> States:
        """What is kept of a text that was read to the end."""
        return States(torch.stack(list(self.keys.values())), torch.stack(list(self.values.values())))


class Decoder:
    """The layers 0 to `layer` of a model whose attention is ours. For one thread at a time."""

    def __init__(self, model: Any, layer: int, device: str, chosen: Backend | None = None) -> None:
        self.layer = layer
        self.device = device
        self._backend = chosen or backend(device)
        model.set_attn_implementation(NAME)
        model.layers = model.layers[: layer + 1]
        model.norm = Identity()
        self._model = model
        self._sections: dict[tuple[int, int], Any] = {(0, layer + 1): model}

    def run(
        self,
        entry: Mapping[str, Tensor],
        positions: Tensor,
        attention: Pass,
        first: int = 0,
        behind: int | None = None,
    ) -> Tensor | None:
        """Tokens or states through the layers from `first` to before `behind`, by default all.

        Gives the states behind the last of them; None if the pass ended before.
        """
        section = self._section(first, self.layer + 1 if behind is None else behind)
        try:
            out = section(position_ids=positions, use_cache=False, attention=attention, **entry)
        except Reached:
            return None
        return cast(Tensor, out.last_hidden_state)

    def read(
        self,
        texts: Texts,
        before: States | None,
        last: int,
        *,
        wanted: Sequence[int] | None = None,
        first: int = 0,
        behind: int | None = None,
    ) -> list[Read]:
        """Texts over what is before them, in batches of like length, up to the keys of layer `last`.

        From `first` on they are states [t, hidden]; reading stops before the layer `behind`, and can go on
        there. Keys and values are kept of the layers `wanted`.
        """
        found: list[Read | None] = [None] * len(texts)
        for numbers in pack([len(text) for text in texts], self._backend.tokens):
            some = [texts[number] for number in numbers]
            batch = self._backend.batch(some, before, last, wanted, self.device)
            hidden = self.run(batch.entry, batch.positions, batch.reader, first, behind)
            for number, (row, tokens) in zip(numbers, batch.places, strict=True):
                found[number] = Read.of(batch.reader, row, tokens, hidden)
        return cast(list[Read], found)

    def flat(self, ids: Sequence[int], positions: Tensor, attention: Pass) -> None:
        """One sequence, tokens at `positions` int64 [t], to the end of the pass."""
        entry = {"input_ids": torch.tensor([list(ids)], device=self.device)}
        self.run(entry, positions[None].to(self.device), attention)

    def _section(self, first: int, behind: int) -> Any:
        """Some of the layers as a model of their own, over the same weights."""
        if (first, behind) not in self._sections:
            part = copy(self._model)
            part._modules = dict(self._model._modules)
            part.layers = ModuleList(self._model.layers[first:behind])
            self._sections[first, behind] = part
        return self._sections[first, behind]
