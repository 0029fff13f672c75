"""Memory for keys and values of documents, in pages of a few tokens, below a fixed number of bytes.

Documents differ in length. In a store with one row a document and a few sizes of rows, a row of one size
cannot become one of another, so a hundred short documents that go make no room for one long one, and what is
left free depends on what was there before. Of pages any free ones make a document, and all that is lost is
the rest of its last page: 12 % at 100 tokens in pages of 16. Pages of 8 lose 4 % of these and take 15 %
longer to read; pages of 32 lose 28 % and take 10 % less. (100 documents of 100 tokens, 37 planes of 3 heads
of 64, to bfloat16 by one thread of an AMD EPYC: 19 ms of its time; 0.2 ms to keep one.)

A page has all layers of its tokens, a layer's keys beside its values, so what one layer reads of a page lies
together, 6 kB here. Planes of all pages of a slab behind one another instead took half as long again.

Memory is taken in slabs as it is needed and never given back. Nothing here knows which pages are in use by
whom: callers take care that no page is read while it is written, and `take` and `give_back` are not for
several threads at once.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.in_context.kernels import decode, encode
from models.in_context.states import States

PAGE = 16
"""Tokens of a page."""

SLAB_BYTES = 64 << 20
"""What memory grows by: few enough slabs that a call of a kernel for each costs little."""

FORMATS = (torch.float32, torch.bfloat16)
"""What kernels read and write."""


@dataclass(frozen=True, eq=False)
class Slab:
    """Codes int8 [pages, planes, kv_heads, PAGE, head_dim]; scales, bits of bfloat16, [.., PAGE].

    Centres float32 [planes, kv_heads, head_dim]: what is coded is the difference from them.
    """

    codes: NDArray[np.int8]
    scales: NDArray[np.uint16]
    centres: NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Stretches:
    """Which tokens lie in the pages of one slab: page `pages[i]` of it has `counts[i]` from `begins[i]` on.

    All int64 [n].
    """

    slab: Slab
    pages: NDArray[np.int64]
    begins: NDArray[np.int64]
    counts: NDArray[np.int64]


class Arena:
    """Pages for documents of l* + 1 layers of keys and l* = `layers` of values.

    Vectors are coded as differences from those of `typical`, some text's states, on average, so that 8 bits
    are not spent on what all have in common. Its first token is left out: it is unlike all others.
    """

    def __init__(
        self, layers: int, kv_heads: int, head_dim: int, budget_bytes: int, typical: States | None = None
    ) -> None:
        self.page_bytes = (2 * layers + 1) * kv_heads * PAGE * (head_dim + 2)
        self._shape = (2 * layers + 1, kv_heads, PAGE, head_dim)
        self._slab_pages = max(1, SLAB_BYTES // self.page_bytes)
        self._ungrown = budget_bytes // self.page_bytes
        self._centres = np.zeros((2 * layers + 1, kv_heads, head_dim), np.float32)
        if typical is not None:
            self._centres[::2], self._centres[1::2] = _average(typical.keys), _average(typical.values)
        self._slabs: list[Slab] = []
        self._free: list[int] = []

    @property
    def free(self) -> int:
        """How many pages can be taken, those included for which there is no memory yet."""
        return len(self._free) + self._ungrown

    @property
    def bytes(self) -> int:
        """What all slabs take."""
        return sum(slab.codes.nbytes + slab.scales.nbytes for slab in self._slabs)

    def take(self, tokens: int) -> NDArray[np.int64]:
        """Pages for so many tokens, int64; MemoryError where too few are free."""
        count = pages_of(tokens)
        if count > self.free:
            raise MemoryError(f"{tokens} tokens need {count} pages; {self.free} are free")
        while len(self._free) < count:
            self._grow()
        return np.array([self._free.pop() for _ in range(count)], np.int64)

    def give_back(self, pages: NDArray[np.int64]) -> None:
        """Say that pages are free; the next to be taken are the last given back."""
        self._free.extend(pages.tolist())

    def write(self, states: States, pages: NDArray[np.int64]) -> bool:
        """Fill pages that were taken for a document; whether all its states are finite."""
        finite = True
        for part in self.stretches([pages], [states.tokens], [0]):
            places = (self._centres, part.slab.codes, part.slab.scales, part.pages, part.begins, part.counts)
            finite &= encode(_bits(states.keys), 0, *places)
            finite &= encode(_bits(states.values), 1, *places)
        return finite

    def stretches(
        self, pages: Sequence[NDArray[np.int64]], lengths: Sequence[int], begins: Sequence[int]
    ) -> list[Stretches]:
        """Where tokens lie of documents that have these pages and lengths and begin at these tokens."""
        if not pages:
            return []
        each = [len(of_document) for of_document in pages]
        within = np.concatenate([np.arange(n) * PAGE for n in each])
        counts = np.minimum(np.repeat(lengths, each) - within, PAGE)
        slabs, rows = np.divmod(np.concatenate(pages), self._slab_pages)
        columns = (rows, np.repeat(begins, each) + within, counts)
        return [
            Stretches(self._slabs[slab], *(column[slabs == slab] for column in columns))
            for slab in np.unique(slabs).tolist()
        ]

    def _grow(self) -> None:
        pages, first = min(self._slab_pages, self._ungrown), len(self._slabs) * self._slab_pages
        shape = (pages, *self._shape)
        self._slabs.append(Slab(np.empty(shape, np.int8), np.empty(shape[:-1], np.uint16), self._centres))
        self._ungrown -= pages
        self._free.extend(range(first + pages - 1, first - 1, -1))


def pages_of(tokens: int) -> int:
    """How many pages a document of so many tokens takes."""
    return -(-tokens // PAGE)


def read(parts: Sequence[Stretches], plane: int, out: Tensor) -> None:
    """Write one plane of documents to `out` [kv_heads, tokens, head_dim], rounded to its number format.

    Straight into memory where it is that of a CPU, float32 or bfloat16, and the last two dimensions are
    contiguous; by way of a copy otherwise. Tokens that `parts` do not have may be overwritten.
    """
    if not parts:
        return
    direct = out.device.type == "cpu" and out.dtype in FORMATS and out[:1].is_contiguous()
    kind = out.dtype if out.dtype in FORMATS else torch.float32
    target = out if direct else torch.empty(out.shape, dtype=kind)
    heads, tokens, dim = target.shape
    flat = _numpy(target.as_strided(((heads - 1) * target.stride(0) + tokens * dim,), (1,)))
    for part in parts:
        slab, places = part.slab, (part.pages, part.begins, part.counts)
        decode(slab.centres, slab.codes, slab.scales, plane, *places, flat, target.stride(0))
    if not direct:
        out.copy_(target)


def _average(states: Tensor) -> NDArray[np.float32]:
    """The mean over tokens, without the first if there are more."""
    tokens = states[:, :, 1:] if states.shape[2] > 1 else states
    found: NDArray[np.float32] = tokens.float().mean(2).cpu().numpy()
    return found


def _bits(states: Tensor) -> NDArray[Any]:
    """The bits of states, uint16 or uint32 in C order; of other formats than the kernels' as float32."""
    kind = states.dtype if states.dtype in FORMATS else torch.float32
    found = _numpy(states.to("cpu", kind).contiguous())
    return found.view(np.uint32) if kind == torch.float32 else found


def _numpy(tensor: Tensor) -> NDArray[Any]:
    """The memory of a tensor, float32 or, of bfloat16, uint16."""
    bits = tensor.view(torch.uint16) if tensor.dtype == torch.bfloat16 else tensor
    found: NDArray[Any] = bits.detach().numpy()
    return found
