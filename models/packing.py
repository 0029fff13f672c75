"""Lengths in, batches out: which texts share a forward.

A padded batch costs its number of texts times its longest text, so texts are sorted by length and cut where
that product would pass a budget. Padding then wastes little, and a batch of long texts takes no more memory
than one of short texts. Pure functions over integers: the caller keeps texts and order.
"""

from collections.abc import Sequence


def pack(lengths: Sequence[int], budget: int, most: int = 1024) -> list[list[int]]:
    """Positions of `lengths` in batches of at most `budget` padded tokens (count x longest) and `most` texts.

    Shortest first; equal lengths keep their order. A text longer than the budget travels alone.
    """
    if budget < 1 or most < 1:
        raise ValueError(f"a batch holds at least one token and one text, not budget={budget}, most={most}")
    batches: list[list[int]] = []
    current: list[int] = []
    for position in sorted(range(len(lengths)), key=lengths.__getitem__):
        grown = len(current) + 1
        if current and (grown > most or grown * lengths[position] > budget):
            batches.append(current)
            current = []
        current.append(position)
    return [*batches, current] if current else batches
