"""What nets made of questions, kept so that a question that was asked before queues for no net.

It outlives generations, and serves other pages, filters and pipelines of the same question. Questions only:
documents are encoded once, and the texts of model endpoints rarely come twice.
"""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save

from service.cache import Cache, key_of, recall

Arrays = Mapping[str, NDArray[Any]]


class QueryEncodings:
    """Arrays by net and question. For the event loop only."""

    def __init__(self, cache: Cache) -> None:
        self._cache = cache

    async def of(self, net: str, query: str, make: Callable[[], Awaitable[Arrays]]) -> Arrays:
        """What `make` made when it was last asked, or makes now; `net` differs between any two that make
        something else.
        """
        key = key_of("encoding", net, query)
        kept = await recall(self._cache, key, _read)
        if kept is None:
            kept = await make()
            self._cache.put(key, save(dict(kept)))
        return kept


def _read(raw: bytes) -> Arrays:
    """Kernels are compiled for arrays that can be written to, so they are copied."""
    try:
        return {name: np.array(values) for name, values in load(raw).items()}
    except SafetensorError as error:
        raise ValueError(f"not arrays: {error}") from error
