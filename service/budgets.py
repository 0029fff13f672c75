"""How many tokens a forward of a net should have, found out by running some.

Larger batches use a device better until they do not, and where that is depends on net, cores and caches.
Beyond it they only make others wait longer, so the smallest batch that is about as fast as the best is taken.
"""

import time
from collections.abc import Callable, Mapping, Sequence, Sized
from typing import Any, NamedTuple, Protocol

from models import Kind
from models.memory import out_of_memory

UNMEASURED = 2048
"""Padded tokens of a forward of a net that nobody measured."""

SIZES = (512, 1024, 2048, 4096, 8192)
"""Padded tokens of the forwards that are tried: beyond the last a batch would hold up others for too long."""

LENGTH = 128
"""About as many tokens has each text of them, as passages have."""

ENOUGH = 0.95
"""Share of the highest speed that is as good as it: two runs of one batch differ by as much."""

RUNS = 2
"""How often each is tried, of which the faster counts."""

LONGEST = 1.0
"""Seconds after which no larger batch is tried, with what it would take."""


class Net(Protocol):
    """What is measured (see `service.batcher.Net`)."""

    def tokenize(self, inputs: Sequence[Any], kind: Kind) -> Sequence[Sized]:
        """An item for each input."""
        ...

    def forward(self, items: Sequence[Any]) -> Any:
        """Takes as long as any forward."""
        ...


class Budget(NamedTuple):
    """Padded tokens of a forward, and how many tokens a second pass through the net so."""

    tokens: int
    per_second: float


class Run(NamedTuple):
    """One forward."""

    tokens: int
    seconds: float


def measured(net: Net, most: int, make: Callable[[str], Any] = str) -> Budget:
    """Run batches of growing size and at most `most` items, made of what `make` makes of a text, and choose.

    Raises what a forward raises; running out of memory only ends the climb, if a smaller batch went well.
    """
    item = _item(net, make)
    net.forward([item])  # first forwards are slow
    speeds = climb(
        lambda size: _run(net, [item] * max(1, min(most, size // len(item)))),
        [size for size in SIZES if size // len(item) <= most] or SIZES[:1],
    )
    tokens = choose(speeds)
    return Budget(tokens, speeds[tokens])


def choose(speeds: Mapping[int, float]) -> int:
    """Of sizes and their speeds, the smallest that has `ENOUGH` of the highest."""
    highest = max(speeds.values())
    return min(size for size, speed in speeds.items() if speed >= ENOUGH * highest)


def climb(run: Callable[[int], Run], sizes: Sequence[int]) -> dict[int, float]:
    """Tokens a second of each size, up to where two in a row were hardly better than a smaller one."""
    speeds: dict[int, float] = {}
    spent = best = 0.0
    hardly = 0
    for size in sizes:
        if hardly == 2 or (speeds and spent + RUNS * size / best > LONGEST):
            break
        try:
            runs = [run(size) for _ in range(RUNS)]
        except (MemoryError, RuntimeError) as error:
            if not speeds or not out_of_memory(error):
                raise
            break
        spent += sum(each.seconds for each in runs)
        speeds[size] = max(each.tokens / each.seconds for each in runs)
        hardly = 0 if ENOUGH * speeds[size] > best else hardly + 1
        best = max(best, speeds[size])
    return speeds


def _item(net: Net, make: Callable[[str], Any]) -> Sized:
    """What the net makes of a text of about `LENGTH` tokens."""

    def item(words: int) -> Sized:
        return net.tokenize([make("moon " * words)], "document")[0]

    return item(max(1, LENGTH * LENGTH // len(item(LENGTH))))


def _run(net: Net, batch: Sequence[Sized]) -> Run:
    began = time.perf_counter()
    net.forward(batch)
    return Run(sum(map(len, batch)), max(time.perf_counter() - began, 1e-9))
