"""Compiled inner loops: arrays in, arrays out, serial, without the GIL.

numba compiles a function for the types it is called with. `warm` makes those
calls once, at start, with arrays of the types in use, so that no search waits
for a compiler; with NUMBA_CACHE_DIR set by the process, later starts load them.
"""

import numpy as np

from indexer.kernels import bm25, dense, find, postings

ENTRIES = (
    bm25.search,
    bm25.contributions,
    bm25.live_frequencies,
    dense.dot_rows,
    dense.top_rows,
    find.find,
    postings.move,
)
"""What is called from Python; everything else is compiled into these."""


def compiled_signatures() -> int:
    """How many versions of the entries are compiled; it stays as it is after `warm`."""
    return sum(len(entry.signatures) for entry in ENTRIES)


def warm() -> None:
    """Compile, or load from the cache, every entry for the types in use."""
    starts, mask = np.array([0, 1]), np.ones(1, np.bool_)
    rows, tf, title_tf = np.zeros(1, np.uint32), np.ones(1, np.uint16), np.ones(1, np.uint8)
    lists = (starts, rows, tf, title_tf)
    terms, weights = np.zeros(1, np.int64), np.ones(1, np.float32)
    bm25.search(*lists, weights, terms, weights, 1.0, 2.0, 1, mask)
    bm25.contributions(*lists, weights, terms, weights, 1.0, 2.0, 0)
    bm25.live_frequencies(starts, rows, terms, mask)
    vectors = np.zeros((1, 1), np.uint16)
    dense.top_rows(vectors, weights, 1, mask, 0, 1)
    dense.dot_rows(vectors, weights, terms)
    _warm_strings()
    postings.move(*lists, terms, terms, terms.copy(), rows.copy(), tf.copy(), title_tf.copy())


def _warm_strings() -> None:
    """The strings that are looked up lie in immutable bytes, which is another type than a mapped array."""
    wanted = (np.frombuffer(bytes(8), np.uint64), np.zeros(2, np.uint64), np.frombuffer(b"", np.uint8))
    find.find(
        np.zeros(1, np.uint64), np.zeros(1, np.uint32), np.zeros(2, np.uint64), np.zeros(1, np.uint8), *wanted
    )
