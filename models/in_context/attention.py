"""Who looks at whom: the one attention function that nets run, and the passes that decide what it does.

The function is registered with transformers, which calls it in every layer of any decoder in place of its
own, so no model code is ours. What it does is said by the pass that is handed through the forward: reading
an instruction, reading documents over it, asking over documents, or a whole prompt at once. A pass ends a
forward at the layer where it is done by raising `Reached`: layers above never run.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad, scaled_dot_product_attention
from transformers import AttentionInterface, AttentionMaskInterface

from models.in_context.flat import Attend
from models.in_context.flex import block_mask, flex_attend
from models.in_context.read_out import Drop, Reading, ReadOut, mass, wide
from models.in_context.segments import Segments
from models.in_context.states import Source, States

NAME = "winnow"

SURE = 1e-6
"""How far below those that stay the best document stands that was dropped."""


class Reached(Exception):  # noqa: N818 - it is no error
    """The forward has come to the layer where it ends."""


class Pass(Protocol):
    """What a forward does in its layers."""

    def __call__(self, layer: int, q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
        """Attention of one layer: q [batch, heads, t, head_dim], k and v [batch, kv_heads, t, head_dim],
        rotated.

        Gives the like of q. Raises Reached where the forward ends.
        """
        ...


def _attend(
    module: Any, query: Tensor, key: Tensor, value: Tensor, mask: None, *, attention: Pass, **options: Any
) -> tuple[Tensor, None]:
    scale = options.get("scaling") or query.shape[-1] ** -0.5
    out = attention(module.layer_idx, query, key, value, scale)
    return out.transpose(1, 2).contiguous(), None


AttentionInterface.register(NAME, _attend)
AttentionMaskInterface.register(NAME, lambda *_, **__: None)


def grouped(q: Tensor, k: Tensor, v: Tensor, seen: Tensor, scale: float) -> Tensor:
    """Attention of q [batch, heads, t, d] to k, v [batch, kv_heads, s, d] where `seen`, bool [t, s], says so.

    Heads that share keys are rows of one product, so keys are neither repeated nor read twice.
    """
    batch, heads, t, d = q.shape
    shared = k.shape[1]
    rows = q.reshape(batch, shared, heads // shared * t, d)
    every = seen.repeat(heads // shared, 1)
    if rows.requires_grad and rows.device.type == "cpu":
        # The gradient of torch's attention for CPUs takes as long as all other products of a small net.
        logits = ((rows * scale) @ k.transpose(2, 3)).masked_fill(~every, float("-inf"))
        return (logits.softmax(-1) @ v).view(q.shape)
    return scaled_dot_product_attention(rows, k, v, attn_mask=every, scale=scale).view(q.shape)


def causal(t: int, before: int, device: torch.device) -> Tensor:
    """What t tokens see of so many before them and of themselves: bool [t, before + t]."""
    return torch.ones(t, before + t, dtype=torch.bool, device=device).tril(before)


class Reader(ABC):
    """Reads texts, perhaps behind an instruction, and keeps keys and values; of layer `last` only keys are
    made.

    How many texts a row of the batch has, and who sees whom, is the subclass's.
    """

    def __init__(self, last: int, before: States | None, wanted: Sequence[int] | None) -> None:
        self.keys: dict[int, Tensor] = {}
        self.values: dict[int, Tensor] = {}
        self._last = last
        self._before = before
        self._wanted = range(last + 1) if wanted is None else wanted

    def __call__(self, layer: int, q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
        """See Pass."""
        if layer in self._wanted:
            self.keys[layer] = k
        if layer == self._last:
            raise Reached
        if layer in self._wanted:
            self.values[layer] = v
        if self._before is not None:
            k = _behind(self._before.keys[layer], k)
            v = _behind(self._before.values[layer], v)
        return self._attend(q, k, v, scale)

    @abstractmethod
    def _attend(self, q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
        """Attention of texts to themselves and what is before them, by who sees whom."""


class Padded(Reader):
    """A text a row, padded behind: a token sees nothing behind itself, so padding changes nothing."""

    def _attend(self, q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
        return grouped(q, k, v, causal(q.shape[2], k.shape[2] - q.shape[2], q.device), scale)


class Ragged(Reader):
    """All texts in one row, one behind the other, by FlexAttention with a mask made of where they begin."""

    def __init__(
        self,
        last: int,
        before: States | None,
        wanted: Sequence[int] | None,
        lengths: Sequence[int],
        device: str,
    ) -> None:
        super().__init__(last, before, wanted)
        self._instruction = 0 if before is None else before.tokens
        self._mask = block_mask(Segments.of(self._instruction, lengths, 0), device=device)

    def _attend(self, q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
        # A mask has as many queries as keys: the instruction has asked already, so nothing asks in its place.
        rows = pad(q, (0, 0, self._instruction, 0))
        return flex_attend(rows, k, v, self._mask, scale=scale)[:, :, self._instruction :]


class Asker:
    """Asks questions over documents: one forward of all questions' tokens, one behind the other."""

    def __init__(self, asked: Sequence["Asked"], last: int) -> None:
        self._asked = asked
        self._last = last

    def __call__(self, layer: int, q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
        """See Pass."""
        out = torch.empty_like(q)
        at = 0
        for each in self._asked:
            rows = slice(at, at + each.tokens)
            found = each(layer, q[:, :, rows], k[:, :, rows], v[:, :, rows], scale, layer == self._last)
            if found is not None:
                out[:, :, rows] = found
            at += each.tokens
        if layer == self._last:
            raise Reached
        return out


class Asked:
    """A question, and the content-free one behind it if there is one, over their documents.

    Each block of `lengths` tokens sees the instruction, all documents and itself. Attention is read as the
    layers go by, from the tokens `rows` of each block.
    """

    def __init__(
        self,
        lengths: Sequence[int],
        rows: Sequence[Sequence[int]],
        plan: "Plan",
        before: States,
        documents: Source,
        drop: Drop | None = None,
    ) -> None:
        self.tokens = sum(lengths)
        self._plan = plan
        self._before = before
        self._drop = drop
        starts = [sum(lengths[:number]) for number in range(len(lengths))]
        device = before.keys.device
        self._rows = [
            torch.tensor([start + row for row in each], device=device)
            for start, each in zip(starts, rows, strict=True)
        ]
        blocks = torch.repeat_interleave(torch.tensor(lengths, device=device))
        self._own = (blocks[:, None] == blocks).tril()
        self._candidates = list(range(len(documents.lengths)))
        self._gone: tuple[list[int], Reading] | None = None
        self._over(documents)

    def _over(self, documents: Source) -> None:
        """Go on with these documents: room for their keys and values beside the instruction's and our own."""
        self._documents = documents
        self._all = sum(documents.lengths)
        self._first = self._before.tokens
        self._behind = self._first + self._all
        like = self._before.keys
        shape = (2, like.shape[1], self._behind + self.tokens, like.shape[3])
        self._room = torch.empty(shape, dtype=like.dtype, device=like.device)
        ones = self._own.new_ones(self.tokens, self._behind)
        self._seen = torch.cat([ones, self._own], dim=1)
        self._mass = [wide(like.new_zeros(self._all)) for _ in self._rows]

    def __call__(
        self, layer: int, q: Tensor, k: Tensor, v: Tensor, scale: float, last: bool
    ) -> Tensor | None:
        """Attention of one layer over everything; None of the last one, where it is only read."""
        if self._drop is not None and layer == self._drop.layer:
            self._fill(layer, k, None)
            self._leave(q[0], scale)
        self._fill(layer, k, None if last else v)
        weights = self._plan.weights.get(layer)
        if weights is not None:
            self._read(q[0], weights, scale)
        if last:
            return None
        keys, values = self._room
        return grouped(q, keys[None], values[None], self._seen, scale)

    def reading(self) -> Reading:
        """Scores of all documents; those dropped early stand behind the others, in their order then."""
        kept = Reading.of(self._difference(), self._documents.lengths, self._plan.robust)
        return kept if self._gone is None else _joined(kept, self._candidates, *self._gone)

    def _fill(self, layer: int, k: Tensor, v: Tensor | None) -> None:
        keys, values = self._room
        keys[:, : self._first] = self._before.keys[layer]
        keys[:, self._behind :] = k[0]
        documents = None
        if v is not None:
            values[:, : self._first] = self._before.values[layer]
            values[:, self._behind :] = v[0]
            documents = values[:, self._first : self._behind]
        self._documents.fill(layer, keys[:, self._first : self._behind], documents)

    def _read(self, q: Tensor, weights: Tensor, scale: float) -> None:
        for rows, total in zip(self._rows, self._mass, strict=True):
            total += self._attention(q, rows, weights, scale)

    def _attention(self, q: Tensor, rows: Tensor, weights: Tensor, scale: float) -> Tensor:
        """What the tokens `rows` give to each token of the documents: float32 [all]."""
        keys, scale = self._room[0], scale / self._plan.temperature
        if self._plan.everything:
            found = mass(q[:, rows], keys, weights, scale, ~self._seen[rows], self._plan.later)
            return found[self._first : self._behind]
        return mass(q[:, rows], keys[:, self._first : self._behind], weights, scale, later=self._plan.later)

    def _difference(self) -> Tensor:
        """Attention of the question, less that of the content-free one."""
        return self._mass[0] - self._mass[1] if len(self._mass) > 1 else self._mass[0]

    def _leave(self, q: Tensor, scale: float) -> None:
        """Part with the documents that all heads of this layer care least for."""
        assert self._drop is not None
        every = torch.full((q.shape[0],), 1 / q.shape[0], device=q.device)
        found = [self._attention(q, rows, every, scale) for rows in self._rows]
        difference = found[0] - found[1] if len(found) > 1 else found[0]
        reading = Reading.of(difference, self._documents.lengths, False)
        kept = self._drop.kept(reading.scores)
        left = sorted(set(self._candidates) - set(kept))
        if not left:
            return
        self._gone = left, Reading(reading.scores[left], tuple(reading.tokens[number] for number in left))
        before = self._mass, self._documents.lengths
        self._candidates = kept
        self._over(self._documents.take(kept))
        self._mass = [
            torch.cat([torch.split(total, list(before[1]))[number] for number in kept]) for total in before[0]
        ]


class Alone:
    """Asks questions that see the instruction and themselves only, and keeps their queries of the last
    layer.
    """

    def __init__(self, lengths: Sequence[int], before: States, last: int) -> None:
        self.queries: tuple[Tensor, ...] = ()
        self._lengths = list(lengths)
        self._before = before
        self._last = last

    def __call__(self, layer: int, q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
        """See Pass."""
        if layer == self._last:
            self.queries = tuple(each * scale for each in torch.split(wide(q[0]), self._lengths, dim=1))
            raise Reached
        keys, values = self._before.keys[layer][None], self._before.values[layer][None]
        found = []
        for own in zip(*(torch.split(tensor, self._lengths, dim=2) for tensor in (q, k, v)), strict=True):
            seen = causal(own[0].shape[2], self._before.tokens, q.device)
            both = torch.cat([keys, own[1]], 2), torch.cat([values, own[2]], 2)
            found.append(grouped(own[0], *both, seen, scale))
        return torch.cat(found, 2)


class Flat:
    """A whole prompt as one sequence, attended to by `attend`; attention to the documents is read on the
    way.
    """

    def __init__(self, attend: Attend, rows: Sequence[int], documents: slice, plan: "Plan") -> None:
        self.mass = torch.zeros(0)
        self._attend = attend
        self._rows = list(rows)
        self._documents = documents
        self._plan = plan

    def __call__(self, layer: int, q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
        """See Pass."""
        weights = self._plan.weights.get(layer)
        if weights is not None:
            found = self._read(q[0], k[0], weights, scale / self._plan.temperature)
            self.mass = self.mass + found if len(self.mass) else found
        if layer == self._plan.last:
            raise Reached
        return self._attend(layer, q, k, v, scale)

    def _read(self, q: Tensor, k: Tensor, weights: Tensor, scale: float) -> Tensor:
        queries = q[:, self._rows]
        if not self._plan.everything:
            return mass(queries, k[:, self._documents], weights, scale, later=self._plan.later)
        places = torch.arange(k.shape[1], device=k.device)
        behind = places > torch.tensor(self._rows, device=k.device)[:, None]
        return mass(queries, k, weights, scale, behind, self._plan.later)[self._documents]


class Plan:
    """A read-out as tensors of one net: weights float32 [heads] by layer."""

    def __init__(self, read: ReadOut, last: int, heads: int, device: str) -> None:
        weights = read.weights(last, heads)
        self.weights = {layer: torch.tensor(each, device=device) for layer, each in weights.items()}
        self.last = max(weights)
        self.everything = read.over == "everything"
        self.robust = read.robust
        self.temperature = read.temperature
        self.later = read.later


def _joined(kept: Reading, stayed: Sequence[int], left: Sequence[int], gone: Reading) -> Reading:
    """Of all documents: those that left keep their distances, the best of them just behind those that
    stayed.
    """
    scores = np.empty(len(stayed) + len(left), kept.scores.dtype)
    scores[list(stayed)] = kept.scores
    scores[list(left)] = gone.scores - gone.scores.max() + kept.scores.min() - SURE
    parts = dict(zip([*stayed, *left], [*kept.tokens, *gone.tokens], strict=True))
    return Reading(scores, tuple(parts[number] for number in range(len(parts))))


def _behind(first: Tensor, then: Tensor) -> Tensor:
    """The same rows before each of a batch: [kv_heads, p, d] and [batch, kv_heads, t, d]."""
    return torch.cat([first[None].expand(len(then), -1, -1, -1), then], dim=2)
