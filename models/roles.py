"""One door to every net: what it is for and its name in, the loaded net out.

A net's class is imported when the first of its kind is asked for: what stands behind it (torch) takes
seconds, and a process whose collections hold words only never needs it.
"""

import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Literal, Protocol

Role = Literal["dense", "sparse", "late", "cross", "quality", "in_context"]
"""What a net is for; under this word its fingerprint stands in a manifest."""


class Loaded(Protocol):
    """What all nets have in common."""

    @property
    def fingerprint(self) -> str:
        """Differs between any two nets whose output differs."""
        ...


Load = Callable[[Role, str], Loaded]
"""Loads the net of a name for a role."""


_LOADING = threading.Lock()
"""One net at a time: while transformers loads one, the number format of new tensors is changed for the whole
process, and two threads that load side by side leave it changed.
"""


def loader(cache: Path) -> Load:
    """How nets are loaded, keeping converted weights in `cache`."""
    return partial(load, cache)


def load(cache: Path, role: Role, name: str) -> Loaded:
    """Load the net called `name` (see `models.load`); from any thread, one after another.

    Raises WeightsMissing, or ValueError for weights that are not of this role.
    """
    with _LOADING:
        return _load(cache, role, name)


def _load(cache: Path, role: Role, name: str) -> Loaded:
    if role == "sparse":
        from models.sparse import SparseEncoder

        return SparseEncoder.load(name, cache=cache)
    if role == "late":
        from models.late import LateEncoder

        return LateEncoder.load(name, cache=cache)
    if role == "cross":
        from models.cross import CrossEncoder

        return CrossEncoder.load(name, cache=cache)
    if role == "in_context":
        from models.in_context.net import InContextNet

        return InContextNet.load(name, cache=cache)
    if role == "quality":
        from models.quality import load_quality

        return load_quality(name)
    from models.dense import DenseEncoder

    return DenseEncoder.load(name, cache=cache)
