"""Token vectors of a segment: a passage's score is the mean of the question's best matches among its own.

A passage's score is the mean over the question's vectors of the largest similarity to any of the passage's
(MaxSim: Khattab & Zaharia, "ColBERT", 2020; a mean and not a sum, so that questions of different length
compare). Similarities are exact integer products of int8 codes times the scales of both vectors; the product
of matrices is the caller's (`Products`: it needs a library that a reader of an index does not), everything
around it is `kernels.maxsim`. Scores do not depend on the batch, the order or the segment of the passages.

Passages are ragged and stay so: the vectors of a few thousand tokens are copied together, multiplied and
reduced while they are in the cache, without padding.
"""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from indexer.kernels.maxsim import bests, means
from indexer.segment.arrays import Arrays, create_arrays, open_arrays, write_arrays
from indexer.segment.codec import MOST_CENTROIDS, Codebook, Codes, Packed, to_int8, to_residuals
from indexer.segment.late_vectors import SCRATCH, Int8, Residual4, book_arrays, read_books
from indexer.segment.ragged import blocks, kept, offsets_of

Precision = Literal["int8", "residual4"]

Products = Callable[[NDArray[np.int8], NDArray[np.int8]], NDArray[np.int32]]
"""Codes int8 [t, dim] and [q, dim] to their exact dot products, int32 [t, q]: `models.maxsim.products`."""

TOGETHER = 4096
"""Vectors that are multiplied at a time, so that they are still in the cache when they are."""

MULTIPLE = 16
"""Rows of a question's codes: products with another number of rows take up to three times as long."""

MOST_VECTORS = 1 << 16
"""Of a passage, since labels take two bytes."""


class LateQuestion(NamedTuple):
    """A question's vectors: codes int8 [q or more, dim] and scales float32 [q].

    Codes are filled up with rows of zeros to a multiple of 16, which matrix products are fastest with.
    """

    codes: NDArray[np.int8]
    scales: NDArray[np.float32]


class Tokens(NamedTuple):
    """What is stored of a passage: its vectors float32 [m, dim], and what they stand for.

    ids int32 [tokens] are the tokens as the encoder numbers them, labels int32 [tokens] which vector stands
    for each; None where each has its own.
    """

    vectors: NDArray[np.float32]
    ids: NDArray[np.int32]
    labels: NDArray[np.int32] | None = None


class Gathered(NamedTuple):
    """Rows' vectors: codes int8 [t, dim], scales float32 [t], and where each row's begin, int64 [n + 1]."""

    codes: NDArray[np.int8]
    scales: NDArray[np.float32]
    offsets: NDArray[np.int64]


def question(vectors: NDArray[np.float32]) -> LateQuestion:
    """Make int8 codes of a question's vectors, float32 [q, dim]. ValueError for none, NaN and infinities."""
    if vectors.ndim != 2 or len(vectors) == 0:
        raise ValueError(f"a question needs at least one vector, not an array of shape {vectors.shape}")
    codes, scales = to_int8(vectors)
    return LateQuestion(np.pad(codes, ((0, -len(codes) % MULTIPLE), (0, 0))), scales)


def mean_of_bests(best: NDArray[np.float32], asked: LateQuestion) -> NDArray[np.float32]:
    """Scores float32 [n] of the best matches float32 [n, q], which `models.maxsim.best_matches` gives.

    Best matches are without the question's scales; minus infinity says that a row has no vectors.
    """
    scores: NDArray[np.float32] = means(best, asked.scales)
    return scores


def write_late(
    path: Path, passages: Iterable[Tokens], dim: int, precision: Precision, codebook: Codebook | None = None
) -> None:
    """Write one item a row; it may be without vectors. Tokens and labels are kept for explanations.

    `residual4` needs a codebook, which must not depend on the segment. Vectors are rounded as they come, so
    that the floats of one passage are held at a time. ValueError for NaN and infinities, for another number
    of dimensions and for labels that are not those of the vectors.
    """
    if (codebook is not None) != (precision == "residual4"):
        raise ValueError(f"precision {precision} is written {'without' if codebook else 'with'} a codebook")

    def encode(vectors: NDArray[np.float32]) -> Codes | Packed:
        return to_int8(vectors) if codebook is None else to_residuals(vectors, codebook)

    lengths, parts = [], [encode(np.empty((0, dim), np.float32))]
    ids, labels = [], []
    for passage in passages:
        _check(passage, dim)
        lengths.append(len(passage.vectors))
        parts.append(encode(passage.vectors))
        ids.append(passage.ids)
        labels.append(_NONE if passage.labels is None else passage.labels.astype(np.uint16))
    columns = [np.concatenate(column) for column in zip(*parts, strict=True)]
    arrays: Arrays = {
        "offset": offsets_of(lengths),
        "token_offset": offsets_of([len(each) for each in ids]),
        "label_offset": offsets_of([len(each) for each in labels]),
        **book_arrays([] if codebook is None else [codebook]),
        "token": _narrowed(np.concatenate([np.empty(0, np.int32), *ids])),
        "label": np.concatenate([_NONE, *labels]),
        **dict(zip(_COLUMNS[precision], columns, strict=True)),
    }
    write_arrays(path, arrays)


class Late:
    """Reader of a segment's token vectors: `rows` passages with `vectors` vectors of `dim` dimensions."""

    def __init__(self, path: Path) -> None:
        self._arrays = open_arrays(path)
        self.precision: Precision = "int8" if "code" in self._arrays else "residual4"
        self.starts: NDArray[np.int64] = self._arrays["offset"]
        self.rows, self.vectors = len(self.starts) - 1, len(self._arrays["scale"])
        self._source = Int8(self._arrays) if self.precision == "int8" else Residual4(self._arrays)
        self.dim = self._source.dim

    @property
    def bytes(self) -> int:
        """Size of everything that is stored, tokens and labels included."""
        return sum(array.nbytes for array in self._arrays.values())

    @property
    def codebooks(self) -> list[Codebook]:
        """What residual codes stand for: none at int8; more than one where different ones were merged."""
        return [] if self.precision == "int8" else read_books(self._arrays)

    def lengths(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """How many vectors some rows have."""
        sizes: NDArray[np.int64] = self.starts[rows + 1] - self.starts[rows]
        return sizes

    def tokens(self, rows: NDArray[np.int64]) -> Gathered:
        """The vectors of some rows, in the order given."""
        offsets = offsets_of(self.lengths(rows))
        codes, scales = np.empty((offsets[-1], self.dim), np.int8), np.empty(offsets[-1], np.float32)
        self._source.gather(self.starts, np.array(rows, np.int64), codes, scales)
        return Gathered(codes, scales, offsets)

    def scores(self, asked: LateQuestion, rows: NDArray[np.int64], products: Products) -> NDArray[np.float32]:
        """Scores of some rows, in the order given; -1 for a row without vectors."""
        self._check(asked)
        scores = np.empty(len(rows), np.float32)
        for begin, end, offsets in blocks(self.lengths(rows), TOGETHER):
            codes, scales = SCRATCH.room(int(offsets[-1]), self.dim)
            self._source.gather(self.starts, np.array(rows[begin:end], np.int64), codes, scales)
            best = bests(products(codes, asked.codes), scales, offsets, len(asked.scales))
            scores[begin:end] = means(best, asked.scales)
        return scores

    def pieces(self, row: int) -> NDArray[np.int32]:
        """The row's tokens as the encoder numbers them, int32 [tokens]."""
        begin, end = self._arrays["token_offset"][row : row + 2].tolist()
        stored: NDArray[np.int32] = self._arrays["token"][begin:end].astype(np.int32)
        return stored

    def labels(self, row: int) -> NDArray[np.int32]:
        """Which of the row's vectors stands for each of its tokens, int32 [tokens]."""
        begin, end = self._arrays["label_offset"][row : row + 2].tolist()
        if begin == end:
            return np.arange(self.starts[row + 1] - self.starts[row], dtype=np.int32)
        stored: NDArray[np.int32] = self._arrays["label"][begin:end].astype(np.int32)
        return stored

    def matches(
        self, asked: LateQuestion, row: int, products: Products
    ) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
        """The row's best vector for each of the question's, int32 [q], and their similarities, float32 [q].

        Of equal ones the first. Number -1 and similarity -1 where the row has no vectors; the mean of the
        similarities is the row's score.
        """
        self._check(asked)
        codes, scales, _ = self.tokens(np.array([row]))
        q = len(asked.scales)
        if len(codes) == 0:
            return np.full(q, -1, np.int32), np.full(q, -1, np.float32)
        similar = products(codes, asked.codes)[:, :q].astype(np.float32) * scales[:, None]
        best = similar.argmax(axis=0)
        return best.astype(np.int32), similar[best, np.arange(q)] * asked.scales

    def _check(self, asked: LateQuestion) -> None:
        if asked.codes.shape[1] != self.dim:
            raise ValueError(
                f"a question of {asked.codes.shape[1]} dimensions for passages of {self.dim} dimensions"
            )


def merge_late(path: Path, parts: Sequence[tuple[Late, NDArray[np.bool_]]]) -> None:
    """Write the kept rows of several files in order, byte for byte; codebooks that differ are all kept.

    ValueError for files of different precision or dimensions, and for more than 65,536 centroids.
    """
    _check_alike([late for late, _ in parts])
    books, renumbered = _united([late for late, _ in parts])
    small: Arrays = {
        "offset": offsets_of(_kept(parts, "offset")),
        "token_offset": offsets_of(_kept(parts, "token_offset")),
        "label_offset": offsets_of(_kept(parts, "label_offset")),
        **book_arrays(books),
    }
    shapes = {name: (array.dtype, array.shape) for name, array in small.items()}
    moved = ("token", "label", *_COLUMNS[parts[0][0].precision])
    for name in moved:
        columns = [late._arrays[name] for late, _ in parts]
        length = int(small[_PLACES.get(name, "offset")][-1])
        shapes[name] = (np.result_type(*columns), (length, *columns[0].shape[1:]))
    arrays = create_arrays(path, shapes)
    for name, array in small.items():
        arrays[name][:] = array
    for name in moved:
        at = 0
        for (late, keep), numbers in zip(parts, renumbered, strict=True):
            for some in kept(late._arrays[name], late._arrays[_PLACES.get(name, "offset")], keep):
                arrays[name][at : at + len(some)] = numbers[some] if name == "nearest" else some
                at += len(some)


_COLUMNS: dict[Precision, tuple[str, ...]] = {
    "int8": ("code", "scale"),
    "residual4": ("nearest", "spread", "packed", "scale"),
}
"""Arrays with one element a vector, in the order of `Codes` and `Packed`."""

_PLACES = {"token": "token_offset", "label": "label_offset"}
"""Which array says where a row's elements begin, if it is not `offset`."""

_NONE = np.empty(0, np.uint16)


def _check(passage: Tokens, dim: int) -> None:
    vectors, ids, labels = passage
    if vectors.ndim != 2 or vectors.shape[1] != dim:
        raise ValueError(f"token vectors of shape {vectors.shape} where the segment has {dim} dimensions")
    if len(ids) != len(vectors if labels is None else labels):
        raise ValueError(f"{len(ids)} tokens where vectors or labels are for another number of them")
    if labels is not None and not np.array_equal(np.unique(labels), np.arange(len(vectors))):
        raise ValueError(f"labels must name all of a passage's {len(vectors)} vectors and no others")
    if len(vectors) > MOST_VECTORS:
        raise ValueError(f"a passage of {len(vectors)} vectors; the store numbers up to {MOST_VECTORS}")


def _check_alike(parts: Sequence[Late]) -> None:
    first = parts[0]
    for late in parts:
        if (late.precision, late.dim) != (first.precision, first.dim):
            raise ValueError(
                f"token vectors of {late.dim} dimensions in {late.precision} cannot be merged with those of "
                f"{first.dim} in {first.precision}"
            )


def _narrowed(ids: NDArray[np.int32]) -> NDArray[np.uint16] | NDArray[np.uint32]:
    """Two bytes a token where the encoder's vocabulary allows it."""
    return ids.astype(np.uint16) if ids.max(initial=0) < 1 << 16 else ids.astype(np.uint32)


def _united(parts: Sequence[Late]) -> tuple[list[Codebook], list[NDArray[np.uint16]]]:
    """Every codebook once, and for each part the new number of each of its centroids."""
    books: list[Codebook] = []
    numbers: list[list[NDArray[np.int64]]] = []
    for part in parts:
        numbers.append([])
        for book in part.codebooks:
            place = next((i for i, known in enumerate(books) if known.same(book)), len(books))
            if place == len(books):
                books.append(book)
            first = sum(len(known.centroids) for known in books[:place])
            numbers[-1].append(np.arange(first, first + len(book.centroids)))
    centroids = sum(len(book.centroids) for book in books)
    if centroids > MOST_CENTROIDS:
        raise ValueError(
            f"the merged codebooks have {centroids} centroids; a segment can have {MOST_CENTROIDS}: "
            "encode the collection again with one codebook"
        )
    empty = np.empty(0, np.int64)
    return books, [np.concatenate([empty, *each]).astype(np.uint16) for each in numbers]


def _kept(parts: Sequence[tuple[Late, NDArray[np.bool_]]], places: str) -> NDArray[np.int64]:
    """How many elements each kept row has."""
    return np.concatenate([np.diff(late._arrays[places])[keep] for late, keep in parts])
