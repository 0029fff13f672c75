"""Learned sparse vectors of a segment: weights of vocabulary entries, once by passage and once by term.

The forward index has every passage's packed components (see `kernels.forward`); postings have the same codes
by term. Both hold one stored precision: a weight is a multiple of one step, which depends on the model alone,
and a question's weights are integers too. Scores are sums of integers and the same bits whichever index they
come from, in whichever segment. The question's rounding costs about 1e-5 of a score, a stored weight's half a
step.

Large segments may also have lists for approximate search (see `segment.lists`).
"""

import math
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

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
    scan,
    scores_of,
    unpack,
)
from indexer.kernels.impacts import WINDOW, count_postings, fill_postings, search
from indexer.kernels.terms import Asked
from indexer.kernels.top import GRAIN
from indexer.segment.arrays import Arrays, create_arrays, open_arrays
from indexer.segment.plan import USUAL, Plan, by_lists, by_rows, knobs
from indexer.segment.seismic import SEISMIC, Seismic, bits

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
        self._counts: NDArray[np.int64] = np.diff(self.starts).sum(axis=0)
        lists = path.with_name(SEISMIC)
        self._seismic = Seismic(lists, self.forward) if lists.exists() else None
        self._known: _Mask | None = None
        self.pieces: tuple[NDArray[np.int64], NDArray[np.uint16]] | None = None
        if "piece" in arrays:
            self.pieces = arrays["piece_start"], arrays["piece"]
            self._piece_counts: NDArray[np.int64] = arrays["piece_count"]

    def search(
        self,
        asked: Question,
        k: int,
        allowed: NDArray[np.bool_] | None = None,
        plan: Plan = USUAL,
        floor: float = 0.0,
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """The k best rows that are allowed and share a term with the question, with their exact scores.

        Best first, ties by row. Rows that score less than `floor` may be left out, and some of the best may
        be missing where the search is approximate.
        """
        mask = self._mask(allowed)
        put, k = self.put(asked, floor), min(k, self.rows)
        if self._seismic is not None and by_lists(plan, k, self.rows, mask.number, len(asked.terms)):
            return self._seismic.search(put, knobs(plan, k, mask.number), k, mask.closed)
        best: tuple[NDArray[np.int64], NDArray[np.float32]]
        if by_rows(mask.number, self._postings_of(asked)):
            rows = np.flatnonzero(mask.allowed).astype(np.uint32)
            best = scan(self.forward, rows, put, k, _SCRATCH.table)
        else:
            best = search(self.starts, self.postings, put, self.rows, k, mask.allowed, _SCRATCH.sums)
        return best

    def _postings_of(self, asked: Question) -> int:
        """How many postings the question's terms have."""
        ranks = self.ranks[asked.terms]
        return int(self._counts[ranks[ranks >= 0]].sum())

    def put(self, asked: Question, floor: float = 0.0) -> Asked:
        """The question as the kernels take it; sums whose score is below `floor` are not asked for."""
        least = max(0, int(floor / asked.factor) - (1 << int(GRAIN)))
        return Asked(self.ranks, asked.terms, asked.weights, asked.factor, least)

    def _mask(self, allowed: NDArray[np.bool_] | None) -> "_Mask":
        """A mask in the forms that searches need; the last one is kept, since most searches share theirs."""
        known = self._known
        if known is None or known.given is not allowed:
            every = np.ones(self.rows, np.bool_) if allowed is None else allowed
            known = _Mask(allowed, _EVERY if allowed is None else allowed, bits(~every), int(every.sum()))
            self._known = known
        return known

    def scores(self, asked: Question, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Scores of some rows, in the order given; 0 where nothing matches."""
        found: NDArray[np.float32] = scores_of(
            self.forward, np.array(rows, np.int64), self.put(asked), _SCRATCH.table
        )
        return found

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

    def _unpacked(
        self, rows: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], NDArray[np.int32], NDArray[np.uint16]]:
        offsets = _running(lengths(self.forward, rows))
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
    sizes = np.concatenate([lengths(part.forward, np.flatnonzero(keep)) for part, keep in parts])
    arrays = _create(path, sizes, ranks, terms, first.ceiling, _merged_pieces(parts))
    row = 0
    for part, keep in parts:
        move_rows(part.forward, keep, ranks[part.terms], _forward(arrays), row)
        row += int(keep.sum())
    _invert(arrays)


class _Mask(NamedTuple):
    """Which rows may be found: as it was given, for kernels, as bits of the others, and how many."""

    given: NDArray[np.bool_] | None
    allowed: NDArray[np.bool_]
    closed: NDArray[np.uint32]
    number: int


class _Scratch(threading.local):
    """Arrays that a thread's searches reuse; all zero between two of them."""

    def __init__(self) -> None:
        self.sums = np.zeros(WINDOW, np.uint32)
        self.table = np.zeros(TABLE, np.uint32)


_SCRATCH = _Scratch()


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
    """Fill the postings from the forward index."""
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
