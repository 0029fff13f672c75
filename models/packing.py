"""Lengths in, batches out: which texts share a forward.

A padded batch costs its number of texts times its longest text, so texts are sorted by length and cut where
that product would pass a budget: a batch of long texts takes no more memory than one of short texts. They are
also cut where padding would cost more than the forward it saves, so a question never pays for a passage.
Pure functions over integers: the caller keeps texts and order.
"""

from collections.abc import Sequence

PADDING = 48
"""Tokens of a batch that may be padding: about what a forward of MiniLM on one core costs in itself."""


def pack(lengths: Sequence[int], budget: int, most: int = 1024, padding: int = PADDING) -> list[list[int]]:
    """Positions of `lengths` in batches of at most `most` texts and `budget` tokens, padding included.

    At most `padding` of these are padding. Shortest first; equal lengths keep their order. A text longer than
    the budget travels alone.
    """
    if budget < 1 or most < 1:
        raise ValueError(f"a batch holds at least one token and one text, not budget={budget}, most={most}")
    batches: list[list[int]] = []
    current: list[int] = []
    tokens = 0
    for position in sorted(range(len(lengths)), key=lengths.__getitem__):
        tokens += lengths[position]
        padded = (len(current) + 1) * lengths[position]
        if current and (len(current) == most or padded > budget or padded - tokens > padding):
            batches.append(current)
            current, tokens = [], lengths[position]
        current.append(position)
    return [*batches, current] if current else batches
