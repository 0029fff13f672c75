"""Documents that are read only as far as somebody looks: for dropping some of them early."""

from collections.abc import Callable, Sequence

from torch import Tensor

from models.in_context.decoder import Read

ReadOn = Callable[[Sequence[Tensor], int, int], list[Read]]
"""States [t, hidden] of texts, from which layer and to which one's keys: what was made of them there."""


class Growing:
    """A `Source` of documents that were read up to layer `first`, and are read on when more is asked for.

    At `first` itself keys alone are made, for all; whoever is left when more is asked for is read to the end.
    """

    def __init__(self, read: Sequence[Read], first: int, last: int, on: ReadOn) -> None:
        self.lengths = [len(_hidden(each)) for each in read]
        self._read = read
        self._first = first
        self._last = last
        self._on = on
        self._looked: list[Read] = []
        self._rest: list[Read] = []

    def fill(self, layer: int, keys: Tensor, values: Tensor | None) -> None:
        """See Source."""
        at = 0
        for each in self._to(layer, values is not None):
            end = at + each.keys[layer].shape[1]
            keys[:, at:end] = each.keys[layer]
            if values is not None:
                values[:, at:end] = each.values[layer]
            at = end

    def take(self, documents: Sequence[int]) -> "Growing":
        """See Source."""
        return Growing([self._read[number] for number in documents], self._first, self._last, self._on)

    def _to(self, layer: int, whole: bool) -> Sequence[Read]:
        """The documents read far enough."""
        if layer < self._first:
            return self._read
        states = [_hidden(each) for each in self._read]
        if layer == self._first and not whole:
            self._looked = self._looked or self._on(states, self._first, self._first)
            return self._looked
        self._rest = self._rest or self._on(states, self._first, self._last)
        return self._rest


def _hidden(read: Read) -> Tensor:
    if read.hidden is None:
        raise ValueError("a document that was read to the end cannot be read on")
    return read.hidden
