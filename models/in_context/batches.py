"""How texts pass through a net together: the backends, of which one is chosen for a device at the start.

On a CPU a text is a row, padded, and attention is torch's over instruction and text; little fits in its
caches, so batches are small. On CUDA texts stand one behind the other in a single row, without padding, and
FlexAttention skips what they do not see of each other; a GPU wants to be filled, so batches are large.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from models.in_context.attention import Padded, Ragged, Reader
from models.in_context.states import States
from models.tokens import padded

CPU_TOKENS = 1600
"""Padded tokens that pass through together: what a core's caches hold. (SmolLM2-135M reads 16 documents of
100 tokens together in 77 ms each on one core, 32 in 91, one in 97.)
"""

CUDA_TOKENS = 1 << 15

Texts = Sequence[Any]
"""Token ids of each, or of each its states [t, hidden] between two layers."""


class Batch(NamedTuple):
    """Texts as a net takes them, positions int64 [rows, t], what reads them, and where each text is: row,
    tokens.
    """

    entry: Mapping[str, Tensor]
    positions: Tensor
    reader: Reader
    places: list[tuple[int, slice]]


class Backend(NamedTuple):
    """Makes a batch of texts, what is before them, the layer whose keys are last, and the layers wanted."""

    tokens: int
    batch: Callable[[Texts, States | None, int, Sequence[int] | None, str], Batch]


def backend(device: str) -> Backend:
    """That of a device."""
    return (
        Backend(CUDA_TOKENS, ragged_batch) if device.startswith("cuda") else Backend(CPU_TOKENS, padded_batch)
    )


def padded_batch(
    texts: Texts, before: States | None, last: int, wanted: Sequence[int] | None, device: str
) -> Batch:
    """A text a row."""
    if isinstance(texts[0], Tensor):
        entry = {"inputs_embeds": pad_sequence(list(texts), batch_first=True)}
    else:
        entry = {"input_ids": torch.from_numpy(padded(texts, 0)[0]).to(device)}
    (tensor,) = entry.values()
    start = 0 if before is None else before.tokens
    positions = torch.arange(start, start + tensor.shape[1], device=device).expand(len(texts), -1)
    places = [(row, slice(0, len(text))) for row, text in enumerate(texts)]
    return Batch(entry, positions, Padded(last, before, wanted), places)


def ragged_batch(
    texts: Texts, before: States | None, last: int, wanted: Sequence[int] | None, device: str
) -> Batch:
    """All texts in one row."""
    if isinstance(texts[0], Tensor):
        entry = {"inputs_embeds": torch.cat(list(texts))[None]}
    else:
        entry = {"input_ids": torch.tensor([[number for text in texts for number in text]], device=device)}
    start = 0 if before is None else before.tokens
    lengths = [len(text) for text in texts]
    positions = torch.cat([torch.arange(start, start + length) for length in lengths])[None].to(device)
    ends = [sum(lengths[: number + 1]) for number in range(len(lengths))]
    places = [(0, slice(end - length, end)) for end, length in zip(ends, lengths, strict=True)]
    return Batch(entry, positions, Ragged(last, before, wanted, lengths, device), places)
