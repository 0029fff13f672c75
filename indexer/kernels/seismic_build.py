"""Building the lists of the approximate index: pruned, clustered, summarised (see `seismic`).

A list keeps the rows in which its term weighs most. Some of them, drawn at random, are centroids; every other
row joins the one with the largest dot product, of which only the row's heaviest components are computed
("shallow" k-means, one round). Clusters that are too small are dissolved and their rows join others. A
cluster is a block; its summary has the largest code of every term in any of its rows, from the largest down
until a share of their sum, the energy, is there.

Memory beside the result: one list at a time, and the centroids' components by term.
"""

from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from indexer.kernels.forward import CODE, HEAD, RANK, TABLE, Forward, buffer, read_row
from indexer.kernels.impacts import WINDOW
from indexer.kernels.scalars import Int, Real
from indexer.kernels.seismic import BLOCK_UNIT

BYTE = np.uint32(8)
BYTES = 256


class Recipe(NamedTuple):
    """How lists are made.

    A list has at most `longest` postings, none with a code below `least`; one row in `rows_per_block` is a
    centroid; a row's `leading` heaviest components say which one it joins; blocks have `smallest` rows or
    more.
    """

    least: int
    longest: int
    rows_per_block: float
    leading: int
    smallest: int
    energy: float


class Centroids(NamedTuple):
    """Components of a list's centroids by term, as linked lists that entry 0 ends; and scratch."""

    components: NDArray[np.uint32]
    first: NDArray[np.int32]
    following: NDArray[np.int32]
    number: NDArray[np.int32]
    code: NDArray[np.float32]
    product: NDArray[np.float32]


class Summary(NamedTuple):
    """Scratch for one summary: the largest code by term, all zero between two, and which terms have one;
    sums of codes by their upper half; and a row's components.
    """

    most: NDArray[np.uint16]
    terms: NDArray[np.uint32]
    mass: NDArray[np.int64]
    components: NDArray[np.uint32]


@njit(nogil=True, cache=True)
def histogram(postings: NDArray[np.uint32]) -> NDArray[np.int64]:
    """How many postings have each code, int64[65536]."""
    counts = np.zeros(TABLE, np.int64)
    for x in postings:
        counts[x & CODE] += 1
    return counts


@njit(nogil=True, cache=True)
def build(
    forward: Forward,
    starts: NDArray[np.int64],
    postings: NDArray[np.uint32],
    recipe: Recipe,
    random: np.random.Generator,
) -> tuple[
    NDArray[np.uint32], NDArray[np.uint32], NDArray[np.uint32], NDArray[np.uint32], NDArray[np.uint32]
]:
    """The arrays of `seismic.Lists`, from the postings of `impacts` (`starts` and all)."""
    terms = starts.shape[1] - 1
    of_term = np.zeros(terms + 1, np.uint32)
    rows_from, rows = np.zeros(1024, np.uint32), np.zeros(1024, np.uint32)
    summary_from, summaries = np.zeros(1024, np.uint32), np.zeros(1024, np.uint32)
    centroids, summary = _centroids(recipe, forward), _summary(forward)
    blocks, count, used = 0, 0, np.int64(0)
    for term in range(terms):
        listed = _heaviest(starts, postings, term, recipe)
        block_of, clusters = _cluster(forward, listed, recipe, centroids, random)
        order = np.argsort(block_of, kind="mergesort")
        rows = _room(rows, count + len(listed))
        begin = 0
        for cluster in range(clusters):
            end = begin
            while end < len(order) and block_of[order[end]] == cluster:
                rows[count] = listed[order[end]]
                count += 1
                end += 1
            if end > begin:
                found = _summarise(forward, rows, count - (end - begin), count, summary)
                summaries = _room(summaries, used * BLOCK_UNIT + found + BLOCK_UNIT)
                used += _write(summaries, used * BLOCK_UNIT, found, recipe.energy, summary)
                blocks += 1
                rows_from, summary_from = _room(rows_from, blocks + 1), _room(summary_from, blocks + 1)
                rows_from[blocks], summary_from[blocks] = count, used
            begin = end
        of_term[term + 1] = blocks
    return (
        of_term,
        rows_from[: blocks + 1],
        rows[:count],
        summary_from[: blocks + 1],
        summaries[: used * BLOCK_UNIT],
    )


@njit(nogil=True, cache=True)
def _room(array: NDArray[np.uint32], size: Int) -> NDArray[np.uint32]:
    """The array, or a copy twice as long if it is shorter than `size`."""
    if size <= len(array):
        return array
    larger = np.zeros(2 * size, np.uint32)
    larger[: len(array)] = array
    return larger


@njit(nogil=True, cache=True)
def _heaviest(
    starts: NDArray[np.int64], postings: NDArray[np.uint32], term: Int, recipe: Recipe
) -> NDArray[np.uint32]:
    """Rows of the term's heaviest postings, ascending; equal codes at the end of the list by row."""
    total = 0
    for window in range(starts.shape[0]):
        for p in range(starts[window, term], starts[window, term + 1]):
            total += (postings[p] & CODE) >= recipe.least
    keys, count = np.empty(total, np.uint64), 0
    for window in range(starts.shape[0]):
        for p in range(starts[window, term], starts[window, term + 1]):
            x = postings[p]
            if (x & CODE) >= recipe.least:
                row = np.uint64(window * WINDOW) + np.uint64(x >> RANK)
                keys[count] = (np.uint64(CODE - (x & CODE)) << np.uint64(32)) | row
                count += 1
    if total > recipe.longest:
        keys.sort()
        keys = keys[: recipe.longest]
    rows = np.empty(len(keys), np.uint32)
    for i in range(len(keys)):
        rows[i] = keys[i] & np.uint64(0xFFFFFFFF)
    rows.sort()
    return rows


@njit(nogil=True, cache=True)
def _cluster(
    forward: Forward,
    rows: NDArray[np.uint32],
    recipe: Recipe,
    centroids: Centroids,
    random: np.random.Generator,
) -> tuple[NDArray[np.int64], np.int64]:
    """The cluster of every row, and how many clusters there can be; small ones are dissolved once."""
    block_of = np.zeros(len(rows), np.int64)
    clusters = np.int64(np.ceil(len(rows) / recipe.rows_per_block))
    if clusters < 2:
        return block_of, clusters
    chosen = rows[random.permutation(len(rows))[:clusters]]
    _index(forward, chosen, centroids)
    sizes, open_ = np.zeros(clusters, np.int64), np.ones(clusters, np.bool_)
    for i in range(len(rows)):
        block_of[i] = _nearest(forward, rows[i], recipe.leading, centroids, open_)
        sizes[block_of[i]] += 1
    for cluster in range(clusters):
        open_[cluster] = sizes[cluster] >= recipe.smallest
    if open_.any():
        for i in range(len(rows)):
            if not open_[block_of[i]]:
                block_of[i] = _nearest(forward, rows[i], recipe.leading, centroids, open_)
    _forget(forward, chosen, centroids)
    return block_of, clusters


@njit(nogil=True, cache=True)
def _centroids(recipe: Recipe, forward: Forward) -> Centroids:
    most = np.int64(np.ceil(recipe.longest / recipe.rows_per_block))
    components = buffer(forward)
    room = most * len(components) + 1
    return Centroids(
        components,
        np.zeros(TABLE, np.int32),
        np.zeros(room, np.int32),
        np.zeros(room, np.int32),
        np.zeros(room, np.float32),
        np.zeros(most, np.float32),
    )


@njit(nogil=True, cache=True)
def _index(forward: Forward, rows: NDArray[np.uint32], centroids: Centroids) -> None:
    """List the centroids' components by term."""
    entry = 1
    for number in range(len(rows)):
        for i in range(read_row(forward, np.int64(rows[number]), centroids.components)):
            x = centroids.components[i]
            centroids.number[entry], centroids.code[entry] = number, np.float32(x & CODE)
            centroids.following[entry] = centroids.first[x >> RANK]
            centroids.first[x >> RANK] = entry
            entry += 1


@njit(nogil=True, cache=True)
def _forget(forward: Forward, rows: NDArray[np.uint32], centroids: Centroids) -> None:
    for row in rows:
        for i in range(read_row(forward, np.int64(row), centroids.components)):
            centroids.first[centroids.components[i] >> RANK] = 0


@njit(nogil=True, cache=True)
def _nearest(
    forward: Forward, row: Int, leading: Int, centroids: Centroids, open_: NDArray[np.bool_]
) -> np.int64:
    """The open centroid with the largest product with the row's heaviest components."""
    product = centroids.product[: len(open_)]
    product[:] = 0
    for i in range(leading):
        x = forward.head[np.int64(row) * HEAD + i]
        weight, entry = np.float32(x & CODE), centroids.first[x >> RANK]
        while entry > 0:
            product[centroids.number[entry]] += weight * centroids.code[entry]
            entry = centroids.following[entry]
    best = np.int64(-1)
    for cluster in range(len(open_)):
        if open_[cluster] and (best < 0 or product[cluster] > product[best]):
            best = np.int64(cluster)
    return best


@njit(nogil=True, cache=True)
def _summary(forward: Forward) -> Summary:
    scratch = np.zeros(TABLE, np.uint16), np.zeros(TABLE, np.uint32)
    return Summary(*scratch, np.zeros(BYTES, np.int64), buffer(forward))


@njit(nogil=True, cache=True)
def _summarise(
    forward: Forward, rows: NDArray[np.uint32], begin: Int, end: Int, summary: Summary
) -> np.int64:
    """Collect the largest code of every term of these rows; the number of terms."""
    count = np.uint64(0)
    for at in range(begin, end):
        for i in range(read_row(forward, np.int64(rows[at]), summary.components)):
            x = summary.components[i]
            rank, code = x >> RANK, np.uint16(x & CODE)
            known = summary.most[rank]
            summary.terms[count] = rank
            count += np.uint64(known == 0)
            summary.most[rank] = max(known, code)
    return np.int64(count)


@njit(nogil=True, cache=True)
def _write(summaries: NDArray[np.uint32], begin: Int, count: Int, energy: Real, summary: Summary) -> np.int64:
    """Write the largest codes until they are `energy` of all, and clear the scratch; units written.

    Codes whose upper half is that of the last one written are taken as they come.
    """
    least, spare = _threshold(count, energy, summary)
    written = 0
    for i in range(count):
        rank = summary.terms[i]
        code = np.uint32(summary.most[rank])
        summary.most[rank] = 0
        if code >> BYTE == least:
            spare -= code
        if code >> BYTE > least or (code >> BYTE == least and spare + code > 0):
            summaries[begin + written] = (rank << RANK) | code
            written += 1
    return np.int64(-(-written // BLOCK_UNIT))


@njit(nogil=True, cache=True)
def _threshold(count: Int, energy: Real, summary: Summary) -> tuple[np.uint32, np.float64]:
    """The upper half of the smallest codes to write, and how much of their sum is wanted."""
    summary.mass[:] = 0
    for i in range(count):
        code = summary.most[summary.terms[i]]
        summary.mass[code >> BYTE] += code
    wanted, least = energy * summary.mass.sum(), BYTES - 1
    while least > 0 and summary.mass[least] < wanted:
        wanted -= summary.mass[least]
        least -= 1
    return np.uint32(least), wanted
