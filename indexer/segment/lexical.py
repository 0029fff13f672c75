"""BM25's part of a segment: which terms occur in which passages, and how often.

Postings are term-major, rows ascending, terms numbered in sorted order, with
separate frequencies for body and title so that the title's boost, k1 and b are
chosen when searching. Frequencies saturate (body 65,535, title 255), where
BM25 has long been flat. Nothing about the whole collection is stored: idf and
average length come from the caller, who knows the generation.
"""

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from itertools import chain, compress
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from indexer.kernels.bm25 import contributions, live_frequencies, scores_of, search
from indexer.kernels.postings import move
from indexer.segment.arrays import Arrays, open_arrays, write_arrays
from indexer.segment.dictionary import Dictionary, write_dictionary

Terms = Sequence[str]
_EVERY = np.empty(0, np.bool_)  # kernels read an empty mask as "every row"


class Postings(NamedTuple):
    """Rows that hold a term, ascending, with its frequency in body and title."""

    rows: NDArray[np.uint32]
    tf: NDArray[np.uint16]
    title_tf: NDArray[np.uint8]


def write_lexical(path: Path, bodies: Sequence[Terms], titles: Sequence[Terms]) -> None:
    """Write the analysed terms of every row's body and title."""
    numbers: defaultdict[str, int] = defaultdict()
    numbers.default_factory = numbers.__len__
    body, title = _occurrences(bodies, numbers), _occurrences(titles, numbers)
    terms = sorted(numbers)
    rank, rows = np.empty(len(terms), np.int64), max(1, len(bodies))
    rank[[numbers[term] for term in terms]] = np.arange(len(terms))
    keys = [rank[part.terms] * rows + part.rows for part in (body, title)]
    term_of, postings = _count(keys[0], keys[1], rows)
    starts = np.searchsorted(term_of, np.arange(len(terms) + 1))
    _write(path, terms, starts, postings, body.lengths, title.lengths)


class Lexical:
    """Reader of a segment's postings. Body and title lengths count terms, saturated ones included."""

    def __init__(self, path: Path) -> None:
        arrays = open_arrays(path)
        self.body_lengths: NDArray[np.uint32] = arrays["body_length"]
        self.title_lengths: NDArray[np.uint32] = arrays["title_length"]
        self.rows = len(self.body_lengths)
        self.terms = Dictionary(arrays, "term")
        self._starts: NDArray[np.int64] = arrays["start"]
        self._postings = Postings(arrays["row"], arrays["tf"], arrays["title_tf"])
        self._norms: tuple[tuple[float, ...], NDArray[np.float32]] = ((), np.empty(0, np.float32))

    def lookup(self, terms: Iterable[str]) -> NDArray[np.int64]:
        """Number of every term in this segment, -1 for the absent."""
        return self.terms.find(terms)

    def postings(self, term: int) -> Postings:
        """The postings of a term."""
        here = slice(self._starts[term], self._starts[term + 1])
        rows, tf, title_tf = self._postings
        return Postings(rows[here], tf[here], title_tf[here])

    def live_df(self, terms: NDArray[np.int64], dead: NDArray[np.bool_] | None = None) -> NDArray[np.int64]:
        """Number of rows with each term that are not dead. With `dead` it reads whole lists: keep it."""
        counts: NDArray[np.int64] = live_frequencies(
            self._starts, self._postings.rows, terms, _EVERY if dead is None else dead
        )
        return counts

    def search(
        self,
        terms: NDArray[np.int64],
        weights: NDArray[np.float32],
        k1: float,
        b: float,
        title_boost: float,
        average_length: float,
        k: int,
        allowed: NDArray[np.bool_] | None = None,
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """The k best rows that are allowed and hold a term, with their scores; best first, ties by row.

        `weights` are idf times frequency in the question, for *all* terms of the question, also
        those that this segment lacks (-1): their sum sets the precision, which must be the same
        in every segment. `average_length` is the live mean of body + title_boost * title terms.
        """
        best: tuple[NDArray[np.int64], NDArray[np.float32]] = search(
            self._starts,
            *self._postings,
            self.norms(k1, b, title_boost, average_length),
            terms,
            weights,
            float(title_boost),
            ceiling(weights),
            min(k, self.rows),
            _EVERY if allowed is None else allowed,
        )
        return best

    def scores(
        self,
        terms: NDArray[np.int64],
        weights: NDArray[np.float32],
        k1: float,
        b: float,
        title_boost: float,
        average_length: float,
        rows: NDArray[np.int64],
    ) -> NDArray[np.float32]:
        """float32 [rows]: what `search` gives to these rows, to the bit; 0 for a row that holds no term.

        Rows may come in any order and more than once; ascending ones are found soonest.
        """
        norms = self.norms(k1, b, title_boost, average_length)
        found: NDArray[np.float32] = scores_of(
            self._starts, *self._postings, norms, terms, weights, float(title_boost), ceiling(weights), rows
        )
        return found

    def explain(
        self,
        terms: NDArray[np.int64],
        weights: NDArray[np.float32],
        k1: float,
        b: float,
        title_boost: float,
        average_length: float,
        row: int,
    ) -> NDArray[np.float32]:
        """What each term adds to a row's score, 0 for the absent; they sum to what `search` gives."""
        norms = self.norms(k1, b, title_boost, average_length)
        parts: NDArray[np.float32] = contributions(
            self._starts, *self._postings, norms, terms, weights, float(title_boost), ceiling(weights), row
        )
        return parts

    def norms(self, k1: float, b: float, title_boost: float, average_length: float) -> NDArray[np.float32]:
        """k1 * (1 - b + b * length / average) per row; the answer for the last parameters is kept."""
        wanted = (k1, b, title_boost, average_length)
        known, norms = self._norms
        if known != wanted:
            relative = (self.body_lengths + title_boost * self.title_lengths) / (average_length or 1.0)
            norms = (k1 * (1 - b + b * relative)).astype(np.float32)
            self._norms = (wanted, norms)  # in one assignment, since other threads read the pair
        return norms


def merge_lexical(path: Path, parts: Sequence[tuple[Lexical, NDArray[np.bool_]]]) -> None:
    """Write the kept rows of several segments, in order, as if they had been indexed together."""
    counts = [lexical.live_df(np.arange(len(lexical.terms)), ~keep) for lexical, keep in parts]
    strings = [lexical.terms.strings() for lexical, _ in parts]
    terms = sorted({term for names, n in zip(strings, counts, strict=True) for term in compress(names, n)})
    number = {term: i for i, term in enumerate(terms)}
    new_terms = [np.fromiter((number.get(t, -1) for t in names), np.int64, len(names)) for names in strings]
    starts = np.zeros(len(terms) + 1, np.int64)
    for new_term, n in zip(new_terms, counts, strict=True):
        starts[new_term[n > 0] + 1] += n[n > 0]
    np.cumsum(starts, out=starts)
    total = int(starts[-1])
    merged = Postings(np.empty(total, np.uint32), np.empty(total, np.uint16), np.empty(total, np.uint8))
    cursors, rows = starts[:-1].copy(), 0
    for (lexical, keep), new_term in zip(parts, new_terms, strict=True):
        new_row = np.where(keep, np.cumsum(keep) - 1 + rows, -1)
        move(lexical._starts, *lexical._postings, new_term, new_row, cursors, *merged)
        rows += int(keep.sum())
    body_lengths = np.concatenate([lexical.body_lengths[keep] for lexical, keep in parts])
    title_lengths = np.concatenate([lexical.title_lengths[keep] for lexical, keep in parts])
    _write(path, terms, starts, merged, body_lengths, title_lengths)


def idf(passages: int, frequencies: NDArray[np.int64]) -> NDArray[np.float64]:
    """ln(1 + (N - df + 0.5) / (df + 0.5)), Lucene's form of Robertson's: never negative."""
    weights: NDArray[np.float64] = np.log1p((passages - frequencies + 0.5) / (frequencies + 0.5))
    return weights


def ceiling(weights: NDArray[np.float32]) -> float:
    """The power of two above the sum of the weights, which no score exceeds."""
    return math.ldexp(1.0, math.frexp(math.fsum(weights.tolist()))[1])


class _Occurrences(NamedTuple):
    """Every word of every row in order: its term, its row; and the rows' lengths."""

    terms: NDArray[np.int64]
    rows: NDArray[np.int64]
    lengths: NDArray[np.uint32]


def _occurrences(texts: Sequence[Terms], numbers: defaultdict[str, int]) -> _Occurrences:
    lengths = np.fromiter(map(len, texts), np.uint32, len(texts))
    terms = np.fromiter(map(numbers.__getitem__, chain.from_iterable(texts)), np.int64, int(lengths.sum()))
    return _Occurrences(terms, np.repeat(np.arange(len(texts)), lengths), lengths)


def _count(
    body: NDArray[np.int64], title: NDArray[np.int64], rows: int
) -> tuple[NDArray[np.int64], Postings]:
    """Terms (ascending) and postings from keys `term * rows + row`, one per occurrence."""
    body_keys, body_counts = np.unique(body, return_counts=True)
    title_keys, title_counts = np.unique(title, return_counts=True)
    keys = np.union1d(body_keys, title_keys)
    tf, title_tf = np.zeros(len(keys), np.uint16), np.zeros(len(keys), np.uint8)
    tf[np.searchsorted(keys, body_keys)] = np.minimum(body_counts, np.iinfo(np.uint16).max)
    title_tf[np.searchsorted(keys, title_keys)] = np.minimum(title_counts, np.iinfo(np.uint8).max)
    return keys // rows, Postings((keys % rows).astype(np.uint32), tf, title_tf)


def _write(
    path: Path,
    terms: Sequence[str],
    starts: NDArray[np.int64],
    postings: Postings,
    body_lengths: NDArray[np.uint32],
    title_lengths: NDArray[np.uint32],
) -> None:
    arrays: Arrays = {
        "start": starts,
        "row": postings.rows,
        "tf": postings.tf,
        "title_tf": postings.title_tf,
        "body_length": body_lengths,
        "title_length": title_lengths,
    }
    write_arrays(path, arrays | write_dictionary(terms, "term"))
