"""Compiled inner loops: arrays in, arrays out, serial, without the GIL.

numba compiles a function for the types it is called with. `warm` makes those
calls once, at start, with arrays of the types in use, so that no search waits
for a compiler; with NUMBA_CACHE_DIR set by the process, later starts load them.
"""

import numpy as np
from numpy.typing import NDArray

from indexer.kernels import (
    bm25,
    dense,
    find,
    forward,
    impacts,
    keys,
    maxsim,
    postings,
    seismic,
    seismic_build,
)
from indexer.kernels.terms import Asked

ENTRIES = (
    bm25.search,
    bm25.contributions,
    bm25.scores_of,
    bm25.live_frequencies,
    dense.dot_rows,
    dense.largest_square,
    dense.top_rows,
    find.find,
    forward.pack_rows,
    forward.move_rows,
    forward.lengths,
    forward.frequencies,
    forward.unpack,
    forward.scores_of,
    forward.scan,
    impacts.count_postings,
    impacts.fill_postings,
    impacts.search,
    keys.gather,
    keys.partials,
    keys.masses,
    keys.combine,
    maxsim.gather,
    maxsim.gather_packed,
    maxsim.bests,
    maxsim.means,
    maxsim.pack_residuals,
    postings.move,
    seismic.search,
    seismic_build.histogram,
    seismic_build.build,
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
    bm25.scores_of(*lists, weights, terms, weights, 1.0, 2.0, terms)
    bm25.live_frequencies(starts, rows, terms, mask)
    for precision in (np.uint16, np.int8):
        vectors = np.zeros((1, 1), precision)
        dense.top_rows(vectors, weights, rows, weights, 1, mask, 0, 1)
        dense.dot_rows(vectors, weights, rows, weights, terms)
        dense.largest_square(vectors, weights)
    _warm_strings()
    postings.move(*lists, terms, terms, terms.copy(), rows.copy(), tf.copy(), title_tf.copy())
    _warm_sparse(mask)
    _warm_late(starts, weights)
    _warm_keys(starts, weights)


def _warm_strings() -> None:
    """The strings that are looked up lie in immutable bytes, which is another type than a mapped array."""
    wanted = (np.frombuffer(bytes(8), np.uint64), np.zeros(2, np.uint64), np.frombuffer(b"", np.uint8))
    find.find(
        np.zeros(1, np.uint64), np.zeros(1, np.uint32), np.zeros(2, np.uint64), np.zeros(1, np.uint8), *wanted
    )


def _warm_sparse(mask: NDArray[np.bool_]) -> None:
    """One row with one component, through everything that writes, merges and searches sparse vectors."""
    heads = np.zeros(forward.HEAD, np.uint32)
    rows = forward.Forward(heads, np.zeros(0, np.uint32), np.zeros(2, np.uint32))
    offsets, row = np.array([0, 1]), np.zeros(1, np.int64)
    rank, table = np.zeros(1, np.int32), np.zeros(forward.TABLE, np.uint32)
    forward.pack_rows(offsets, np.zeros(1, np.uint16), np.ones(1, np.uint16), rows)
    forward.move_rows(rows, mask, rank, rows, 0)
    forward.frequencies(rows, mask, np.zeros(forward.TABLE, np.int64))
    forward.lengths(rows, row)
    forward.unpack(rows, row, offsets)
    starts, listed = np.zeros((1, 2), np.int64), np.zeros(1, np.uint32)
    impacts.count_postings(rows, starts)
    impacts.fill_postings(rows, starts, listed)
    asked = Asked(rank, rank, np.ones(1, np.uint32), 1.0, 0)
    forward.scores_of(rows, row, asked, table)
    forward.scan(rows, np.zeros(1, np.uint32), asked, 1, table)
    impacts.search(starts, listed, asked, 1, 1, mask, np.zeros(impacts.WINDOW, np.uint32))
    seismic_build.histogram(listed)
    recipe = seismic_build.Recipe(1, 1, 1.0, 1, 1, 1.0)
    arrays = seismic_build.build(rows, starts, listed, recipe, np.random.default_rng())
    space = seismic.Space(table, *(np.zeros(2, np.uint32) for _ in range(5)))
    lists = seismic.Lists(*arrays, 1)
    seismic.search(rows, lists, asked, seismic.Knobs(1, 1.0, 1.0), 1, np.zeros(1, np.uint32), space)


def _warm_late(starts: NDArray[np.int64], scales: NDArray[np.float32]) -> None:
    """One row with one vector of two dimensions, stored both ways."""
    row, codes = np.zeros(1, np.int64), np.zeros((1, 2), np.int8)
    packed, centroid = np.zeros((1, 1), np.uint8), np.zeros(1, np.uint16)
    maxsim.gather(codes[0], scales, starts, row, codes[0].copy(), scales.copy())
    spread, pairs = np.zeros(1, np.uint8), np.zeros((1, 1, 256), np.uint16)
    stored = (packed, scales, starts, row, centroid, spread, codes, centroid, pairs)
    maxsim.gather_packed(*stored, codes.copy(), np.zeros((1, 1), np.uint16), scales.copy())
    maxsim.means(maxsim.bests(np.zeros((1, 16), np.int32), scales, starts, 1), scales)
    book = (codes, scales, np.ones(1, np.float64), np.zeros((1, 16), np.int8))
    maxsim.pack_residuals(np.ones((1, 2), np.float32), *book, centroid, spread, packed, scales.copy())


def _warm_keys(starts: NDArray[np.int64], scales: NDArray[np.float32]) -> None:
    """One row with one token and one key of one dimension, and a question of one vector."""
    row, codes, of_keys = np.zeros(1, np.int64), np.zeros((1, 1, 1), np.int8), np.ones((1, 1), np.float32)
    keys.gather(codes[0], np.zeros((1, 1), np.uint16), starts, row, codes.copy(), of_keys.copy())
    products, peaks, sums = np.zeros((2, 1), np.int32), of_keys.copy(), of_keys.copy()
    keys.partials(products, scales, of_keys[0], starts, row, peaks, sums)
    keys.masses(products, scales, of_keys[0], scales, np.zeros(1))
    keys.combine(peaks, sums, scales)
