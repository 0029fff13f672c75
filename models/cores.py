"""How many cores a forward uses.

Forwards side by side, each on a core of its own, do more than one forward on several: the cores need not wait
for one another at every layer. (Two cores pass 560 questions a second through MiniLM in two forwards at a
time, and 510 in one.)
"""

import torch

MOST_FORWARDS = 4
"""Forwards at a time: each holds Python's lock for some of its time, so more of them would wait for that."""


def side_by_side(cores: int) -> int:
    """How many forwards at a time share so many cores."""
    return min(cores, MOST_FORWARDS)


def use(cores: int) -> None:
    """Let the forwards of the calling thread use so many cores of the CPU."""
    torch.set_num_threads(cores)
