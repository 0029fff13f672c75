"""Learned sparse vectors of a segment: weights of vocabulary entries, once by passage and once by term.

The forward index has every passage's packed components (see `kernels.forward`); postings have the same codes
by term. Both hold one stored precision: a weight is a multiple of one step, which depends on the model alone,
and a question's weights are integers too. Scores are sums of integers and the same bits whichever index they
come from, in whichever segment. The question's rounding costs about 1e-5 of a score, a stored weight's half a
step.

Large segments also have an approximate index (see `segment.seismic`).
"""

import math
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from indexer.kernels.forward import (
    HEAD,
    TABLE,
    UNIT,
    Forward,
    frequencies,
    lengths,
    move_rows,
    pack_rows,
    scores_of,
    unpack,
)
from indexer.kernels.impacts import WINDOW, count_postings, fill_postings, search
from indexer.kernels.top import GRAIN
from indexer.segment.arrays import Arrays, create_arrays, open_arrays

LARGEST = TABLE - 1
"""The largest code of a weight, and the largest sum of a question's weights."""

_EVERY = np.empty(0, np.bool_)  # kernels read an empty mask as "every row"


class Vectors(Protocol):
    """Sparse rows: `terms` and `weights` of row i are `offsets[i]:offsets[i + 1]`; each term once a row."""

    @property
    def offsets(self) -> NDArray[np.int64]:
        """int64[rows + 1]."""
        ...

    @property
    def terms(self) -> NDArray[np.int32]:
        """Numbers of vocabulary entries, ascending within a row."""
        ...

    @property
    def weights(self) -> NDArray[np.float32]:
        """Positive and finite."""
        ...


class Question(NamedTuple):
    """A question's vocabulary entries and integer weights; a score is a sum of products times `factor`.

    Weights sum to at most 65,535 and `factor` is a power of two, so nothing overflows and nothing is rounded.
    """

    terms: NDArray[np.int32]
    weights: NDArray[np.uint32]
    factor: float


def step_of(ceiling: float) -> float:
    """The step of stored weights for a model none of whose weights is above `ceiling`: a power of two."""
    return math.ldexp(1.0, math.ceil(math.log2(ceiling)) - 16)


def question(terms: NDArray[np.int32], weights: NDArray[np.float32], step: float) -> Question:
    """Make integers of a question's positive weights, in units of the smallest power of two that will do."""
    if len(terms) > LARGEST // 2:
        raise ValueError(f"a question of {len(terms)} terms; at most {LARGEST // 2} can be weighed")
    total = math.fsum(weights.tolist())
    if not (math.isfinite(total) and (weights > 0).all()):
        raise ValueError("a question's weights must be positive and finite")
    unit = math.frexp(total / (LARGEST - len(terms)))[1] if total else 0  # 2**unit * room >= total
    whole = np.maximum(1, np.rint(np.ldexp(weights.astype(np.float64), -unit))).astype(np.uint32)
    return Question(terms.astype(np.int32), whole, math.ldexp(step, unit))


def write_sparse(
    path: Path,
    vectors: Vectors,
    ceiling: float,
    vocabulary: int,
    pieces: Sequence[NDArray[np.int32]] | None = None,
) -> None:
    """Write the vectors of every passage and, for questions weighted by idf, the word pieces of its text.

    `ceiling` is the model's: weights above it are cut. ValueError for weights that are not positive numbers.
    """
    if not (np.isfinite(vectors.weights).all() and (vectors.weights > 0).all()):
        raise ValueError("weights hold zeros, negative numbers or NaN; they cannot be ranked")
    codes = np.clip(np.rint(vectors.weights / step_of(ceiling)), 1, LARGEST).astype(np.uint16)
    ranks, terms = _ranking(np.bincount(vectors.terms, minlength=vocabulary))
    arrays = _create(path, np.diff(vectors.offsets), ranks, terms, ceiling, _listed(pieces, vocabulary))
    pack_rows(vectors.offsets, ranks[vectors.terms].astype(np.uint16), codes, _forward(arrays))
    _invert(arrays)


class Sparse:
    """Reader of a segment's sparse vectors."""

    def __init__(self, path: Path) -> None:
        arrays = open_arrays(path)
        self.forward = _forward(arrays)
        self.rows = len(self.forward.tail_starts) - 1
        self.vocabulary = len(arrays["rank"])
        self.ceiling = float(arrays["ceiling"][0])
        self.step = step_of(self.ceiling)
        self.ranks: NDArray[np.int32] = arrays["rank"]
        self.terms: NDArray[np.int32] = arrays["term"]
        self.starts: NDArray[np.int64] = arrays["posting_start"]
        self.postings: NDArray[np.uint32] = arrays["posting"]
        self.pieces: tuple[NDArray[np.int64], NDArray[np.uint16]] | None = None
        if "piece" in arrays:
            self.pieces = arrays["piece_start"], arrays["piece"]
            self._piece_counts: NDArray[np.int64] = arrays["piece_count"]

    def search(
        self,
        asked: Question,
        k: int,
        allowed: NDArray[np.bool_] | None = None,
        floor: float = 0.0,
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """The k best rows that are allowed and share a term with the question, with their scores.

        Best first, ties by row. Rows that score less than `floor` may be left out.
        """
        ranks, weights = self._present(asked)
        keys = search(
            self.starts,
            self.postings,
            ranks,
            weights,
            self.rows,
            k,
            _integer(floor, asked),
            _EVERY if allowed is None else allowed,
            _SCRATCH.sums,
        )
        return _decoded(keys, asked)

    def scores(self, asked: Question, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Scores of some rows, in the order given; 0 where nothing matches."""
        with self._table(asked) as table:
            sums: NDArray[np.uint32] = scores_of(self.forward, np.array(rows, np.int64), table)
        return _floats((sums >> GRAIN) + (sums > 0), asked)

    def contributions(self, asked: Question, row: int) -> NDArray[np.float32]:
        """What each term of the question adds to a row's score, 0 for those that it lacks."""
        return (asked.weights * self.codes_of(asked, row) * asked.factor).astype(np.float32)

    def codes_of(self, asked: Question, row: int) -> NDArray[np.int64]:
        """The row's stored codes for the question's terms; times `step` they are weights."""
        _, terms, codes = self._unpacked(np.array([row], np.int64))
        table = np.zeros(self.vocabulary, np.int64)
        table[terms] = codes
        return table[asked.terms]

    def vectors(
        self, rows: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], NDArray[np.int32], NDArray[np.float32]]:
        """Stored vectors of some rows as offsets, terms and weights; a row's terms go by falling weight."""
        offsets, terms, codes = self._unpacked(rows)
        return offsets, terms, (codes * self.step).astype(np.float32)

    def piece_frequencies(self, dead: NDArray[np.bool_] | None = None) -> NDArray[np.int64]:
        """In how many rows that are not dead each vocabulary entry is said, int64[vocabulary]."""
        if self.pieces is None:
            raise ValueError("the pieces of this segment's texts were not kept")
        if dead is None or not dead.any():
            return np.array(self._piece_counts, np.int64)
        starts, pieces = self.pieces
        gone = pieces[_ranges(starts, np.flatnonzero(dead))]
        counts: NDArray[np.int64] = self._piece_counts - np.bincount(gone, minlength=self.vocabulary)
        return counts

    @contextmanager
    def _table(self, asked: Question) -> Iterator[NDArray[np.uint32]]:
        """The question's weights by rank, in this thread's scratch."""
        ranks, weights = self._present(asked)
        _SCRATCH.table[ranks] = weights
        try:
            yield _SCRATCH.table
        finally:
            _SCRATCH.table[ranks] = 0

    def _present(self, asked: Question) -> tuple[NDArray[np.int64], NDArray[np.uint32]]:
        """Ranks and weights of the terms that this segment has."""
        ranks = self.ranks[asked.terms].astype(np.int64)
        return ranks[ranks >= 0], asked.weights[ranks >= 0]

    def _unpacked(
        self, rows: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], NDArray[np.int32], NDArray[np.uint16]]:
        offsets = _running(lengths(self.forward)[rows] if len(rows) else np.empty(0, np.int64))
        ranks, codes = unpack(self.forward, rows, offsets)
        return offsets, self.terms[ranks], codes


def merge_sparse(path: Path, parts: Sequence[tuple[Sparse, NDArray[np.bool_]]]) -> None:
    """Write the kept rows of several files, in order, as if they had been written together."""
    first = parts[0][0]
    counts = np.zeros(first.vocabulary, np.int64)
    for part, keep in parts:
        found = np.zeros(TABLE, np.int64)
        frequencies(part.forward, keep, found)
        counts[part.terms] += found[: len(part.terms)]
    ranks, terms = _ranking(counts)
    sizes = np.concatenate([lengths(part.forward)[keep] for part, keep in parts])
    arrays = _create(path, sizes, ranks, terms, first.ceiling, _merged_pieces(parts))
    row = 0
    for part, keep in parts:
        move_rows(part.forward, keep, ranks[part.terms], _forward(arrays), row)
        row += int(keep.sum())
    _invert(arrays)


class _Scratch(threading.local):
    """Arrays that a thread's searches reuse; all zero between two of them."""

    def __init__(self) -> None:
        self.sums = np.zeros(WINDOW, np.uint32)
        self.table = np.zeros(TABLE, np.uint32)


_SCRATCH = _Scratch()


def _integer(score: float, asked: Question) -> int:
    """The integer below which a sum's score is below this one."""
    return max(0, int(score / asked.factor) - (1 << int(GRAIN)))


def _decoded(keys: NDArray[np.uint64], asked: Question) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    return (~keys & np.uint64(0xFFFFFFFF)).astype(np.int64), _floats(keys >> np.uint64(32), asked)


def _floats(scores: NDArray[Any], asked: Question) -> NDArray[np.float32]:
    """Scores as the kernels keep them, 24 bits, as numbers: float32 has all of them."""
    return (scores * math.ldexp(asked.factor, int(GRAIN))).astype(np.float32)


def _ranking(counts: NDArray[np.int64]) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Rank of every vocabulary entry by falling frequency, -1 for the absent; and entries by rank."""
    order = np.argsort(-counts, kind="stable")[: int((counts > 0).sum())].astype(np.int32)
    ranks = np.full(len(counts), -1, np.int32)
    ranks[order] = np.arange(len(order), dtype=np.int32)
    return ranks, order


def _create(
    path: Path,
    sizes: NDArray[np.int64],
    ranks: NDArray[np.int32],
    terms: NDArray[np.int32],
    ceiling: float,
    pieces: Arrays,
) -> Arrays:
    """A mapped file for rows of these many components: all but forward index and postings is filled in."""
    tails = _running(-(-np.maximum(0, sizes - HEAD) // UNIT))
    windows = -(-len(sizes) // WINDOW)
    small: Arrays = {
        "ceiling": np.array([ceiling], np.float64),
        "rank": ranks,
        "term": terms,
        "tail_start": tails.astype(np.uint32),
        **pieces,
    }
    arrays = create_arrays(
        path,
        {name: (array.dtype, array.shape) for name, array in small.items()}
        | {
            "head": (np.uint32, (len(sizes) * HEAD,)),
            "tail": (np.uint32, (int(tails[-1]) * UNIT,)),
            "posting_start": (np.int64, (windows, len(terms) + 1)),
            "posting": (np.uint32, (int(sizes.sum()),)),
        },
    )
    for name, array in small.items():
        arrays[name][:] = array
    return arrays


def _forward(arrays: Arrays) -> Forward:
    return Forward(arrays["head"], arrays["tail"], arrays["tail_start"])


def _invert(arrays: Arrays) -> None:
    count_postings(_forward(arrays), arrays["posting_start"])
    fill_postings(_forward(arrays), arrays["posting_start"], arrays["posting"])


def _listed(pieces: Sequence[NDArray[np.int32]] | None, vocabulary: int) -> Arrays:
    if pieces is None:
        return {}
    every = np.concatenate([np.empty(0, np.int32), *pieces])
    return {
        "piece_start": _running(np.array([len(each) for each in pieces], np.int64)),
        "piece": every.astype(np.uint16),
        "piece_count": np.bincount(every, minlength=vocabulary).astype(np.int64),
    }


def _merged_pieces(parts: Sequence[tuple[Sparse, NDArray[np.bool_]]]) -> Arrays:
    kept = []
    for part, keep in parts:
        if part.pieces is None:
            return {}
        starts, pieces = part.pieces
        kept += [
            pieces[starts[row] : starts[row + 1]].astype(np.int32) for row in np.flatnonzero(keep).tolist()
        ]
    return _listed(kept, parts[0][0].vocabulary)


def _ranges(starts: NDArray[np.int64], rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """The places [starts[row], starts[row + 1]) of all these rows."""
    sizes = starts[rows + 1] - starts[rows]
    offsets = _running(sizes)
    places: NDArray[np.int64] = np.arange(offsets[-1]) + np.repeat(starts[rows] - offsets[:-1], sizes)
    return places


def _running(sizes: NDArray[np.int64]) -> NDArray[np.int64]:
    offsets = np.zeros(len(sizes) + 1, np.int64)
    np.cumsum(sizes, out=offsets[1:])
    return offsets
