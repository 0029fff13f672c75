"""A net's forward without Python: traced once, so that threads run it side by side.

Python between the operations of a small net costs a third of a question's forward, and holds the lock that
everything else in the process waits for: with two forwards at a time and 32 clients a service answers a
quarter more questions with traced nets (docs/decisions/0013). TorchScript is what torch 2.13 has for this
that needs no compiler at the start; it is deprecated in favour of `torch.export`, whose graphs either run in
Python or take g++ and half a minute a net.

Tracing records one run, and a net may branch on what it reads. So what was traced is held against the net
itself on batches of other shapes, and is used only if it gives the same.
"""

import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers.utils import logging as transformers_logging

log = logging.getLogger(__name__)

Forward = Callable[[Tensor, Tensor], Tensor]
"""Ids and mask, int64 [texts, longest], to what the net makes of them."""

SHAPES = ((3, 7), (1, 5), (2, 12), (5, 3))
"""Texts and tokens of the batches: the first is traced, the others are compared."""


class Called(nn.Module):
    """A net that takes its inputs by name, as a function of ids and mask."""

    def __init__(self, net: nn.Module, call: Callable[[Any, Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.net = net
        self._call = call

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        """See `Forward`."""
        return self._call(self.net, ids, mask)


def traced(
    name: str, net: nn.Module, call: Callable[[Any, Tensor, Tensor], Tensor], ids: Sequence[int]
) -> Forward:
    """`call(net, ids, mask)` as a function, traced where the net is on a CPU and that gives the same.

    `ids` are some entries of the vocabulary, of which the batches are made. `name` is for the log.
    """
    plain = Called(net, call).eval()
    if next(net.parameters()).device.type != "cpu":
        return plain
    batches = [_batch(ids, *shape) for shape in SHAPES]
    with torch.inference_mode(), _quiet():
        try:
            graph = torch.jit.freeze(torch.jit.trace(plain, batches[0], check_trace=False))  # type: ignore[no-untyped-call]
            same = all(_same(graph(*batch), plain(*batch)) for batch in batches for _ in range(2))
        except RuntimeError as error:
            log.info("the net %s cannot be traced and runs in Python: %s", name, str(error).splitlines()[0])
            return plain
    if not same:
        log.info("the net %s branches on what it reads and runs in Python", name)
    return graph if same else plain


@contextmanager
def _quiet() -> Iterator[None]:
    """Tracing reads every attribute of a net, and some are deprecated or complain."""
    level = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        transformers_logging.set_verbosity(level)


def _batch(ids: Sequence[int], texts: int, tokens: int) -> tuple[Tensor, Tensor]:
    """A batch in which each text but the first is shorter than the one before, as far as there are tokens."""
    lengths = torch.tensor([max(1, tokens - number) for number in range(texts)])
    mask = (torch.arange(tokens) < lengths[:, None]).long()
    rows = torch.tensor([ids[number % len(ids)] for number in range(texts * tokens)]).view(texts, tokens)
    return rows, mask


def _same(found: Tensor, wanted: Tensor) -> bool:
    """Whether two outputs are the same but for the rounding of the format."""
    near = 20 * torch.finfo(wanted.dtype).eps
    return found.shape == wanted.shape and torch.allclose(found, wanted, rtol=near, atol=near)
