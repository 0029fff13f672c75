"""Keys of a segment's passages in a language model: what a question's attention has of each passage.

A language model that reads a query-free instruction and then a passage makes keys of the passage's tokens
that no question changes, so they are computed when it is indexed. Of one decoder layer they are stored, after
rotary embedding, for every key-value head: int8 codes and a scale a key. A question's vectors, which come of
a forward without any passage, are multiplied by them, and a passage's score is what it has of the softmax
over the tokens of all candidates, summed over the question's vectors with their weights (Gupta et al.,
"Scalable In-context Ranking with Generative Models", arXiv 2510.05396, 2025, read relevance so).

A softmax over all candidates needs of each passage and vector two numbers, the largest logit and the sum of
exponentials below it: `Keys.partials` gives them, from any segment and in any blocks, and `combine` makes
scores of them. Products are exact integers; scores do not depend on the batch, the order or the segment of
the passages. The product of matrices is the caller's (`models.maxsim.products`), everything around it is
`kernels.keys`.

What all tokens have in common adds the same to all logits, which a softmax does not feel, but takes steps of
the codes. So codes are of what a key differs by from a centre, which depends on the net and not on the
segment. Files of other centres, as of a net on another machine, can be merged: each row knows its own, and
what the question has of that is added to the row's logits.

The question's vectors are rounded to two planes of int8, the second for what the first leaves, which makes
them exact to 1.6e-5 of their largest component; the stored keys are what limits precision.
"""

import threading
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from indexer.kernels import keys as kernel
from indexer.segment.arrays import create_arrays, open_arrays
from indexer.segment.ragged import blocks, kept, offsets_of

Products = Callable[[NDArray[np.int8], NDArray[np.int8]], NDArray[np.int32]]
"""Codes int8 [a, dim] and [b, dim] to their exact dot products, int32 [a, b]: `models.maxsim.products`."""

LARGEST = 127
TOGETHER = 2000
"""Tokens that are multiplied at a time, so that what comes of it is still in the cache when it is reduced.

Not a power of two, whose multiples share few of the cache's places.
"""


class Group(NamedTuple):
    """The n vectors of a question that meet one key-value head.

    vectors float32 [n, head_dim] as they are; codes int8 [2 * n, head_dim] their first planes, then their
    second ones; steps float32 [n] what a step of the second is worth, one of the first being 254 of them;
    columns int64 [n] which of the question's vectors they are.
    """

    head: int
    vectors: NDArray[np.float32]
    codes: NDArray[np.int8]
    steps: NDArray[np.float32]
    columns: NDArray[np.int64]


class KeyRows(NamedTuple):
    """A question's q vectors by the key-value heads they meet, and their weights float32 [q]."""

    groups: tuple[Group, ...]
    weights: NDArray[np.float32]


class Coded(NamedTuple):
    """Keys as they are stored: codes int8 [t, kv_heads, head_dim] and scales, bfloat16's bits in uint16 [t,
    kv_heads].
    """

    codes: NDArray[np.int8]
    scales: NDArray[np.uint16]


def key_rows(
    vectors: NDArray[np.float32], kv_heads: NDArray[np.int64], weights: NDArray[np.float32]
) -> KeyRows:
    """Make codes of a question's vectors, float32 [q, head_dim], each with its key-value head and its weight.

    A vector times a key is a logit: what scales logits is in the vectors. ValueError for none at all, for NaN
    and infinities, and for arrays that do not fit one another.
    """
    if vectors.ndim != 2 or len(vectors) == 0 or not len(vectors) == len(kv_heads) == len(weights):
        raise ValueError(
            f"vectors of shape {vectors.shape}, {len(kv_heads)} heads and {len(weights)} weights do not make "
            "a question"
        )
    if not (np.isfinite(vectors).all() and np.isfinite(weights).all()):
        raise ValueError("a question's vectors or weights hold NaN or infinity")
    groups = tuple(_group(vectors, kv_heads, int(head)) for head in np.unique(kv_heads))
    return KeyRows(groups, np.array(weights, np.float32))


def combine(
    peaks: NDArray[np.float32], sums: NDArray[np.float32], weights: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Scores float32 [n] of all candidates, by what `Keys.partials` gave of them, float32 [n, q] each.

    With positive weights that add up to 1 scores do so too. A candidate without tokens has 0.
    """
    scores: NDArray[np.float32] = kernel.combine(
        np.ascontiguousarray(peaks), np.ascontiguousarray(sums), np.array(weights, np.float32)
    )
    return scores


def to_codes(keys: NDArray[np.float32]) -> Coded:
    """Round keys, less their centre, float32 [t, kv_heads, head_dim], to 127 steps of a scale either way.
    ValueError for NaN.

    A scale is the next bfloat16 from a 127th of the largest component, and codes are steps of that: so its
    rounding costs no precision, and no component is beyond the last step.
    """
    if not np.isfinite(keys).all():
        raise ValueError("keys hold NaN or infinity; they cannot be compared")
    largest = np.abs(keys).max(axis=2, initial=0).astype(np.float32) / np.float32(LARGEST)
    bits = ((largest.view(np.uint32) + np.uint32(0xFFFF)) >> np.uint32(16)).astype(np.uint16)
    scales = scale_values(bits)[:, :, None]
    codes = np.rint(keys / np.where(scales > 0, scales, 1))
    return Coded(np.clip(codes, -LARGEST, LARGEST).astype(np.int8), bits)


def scale_values(bits: NDArray[np.uint16]) -> NDArray[np.float32]:
    """The numbers that bfloat16's bits stand for."""
    return (bits.astype(np.uint32) << np.uint32(16)).view(np.float32)


def bytes_of(tokens: int, rows: int, kv_heads: int, head_dim: int) -> int:
    """How much the keys of so many tokens in so many passages take in a file, but for its own framing."""
    return tokens * kv_heads * (head_dim + 2) + 8 * (rows + 1) + 4 * rows + 4 * kv_heads * head_dim


def write_keys(
    path: Path,
    lengths: Sequence[int],
    passages: Iterable[NDArray[np.float32]],
    centre: NDArray[np.float32],
) -> None:
    """Write the keys of each passage, float32 [t, kv_heads, head_dim], as many as `lengths` says.

    centre, float32 [kv_heads, head_dim], should be near the mean of all keys of the net, and the same for
    every segment of a collection. The file has its place on the disk before the first passage is asked for,
    and keys are rounded and written as they come. ValueError for NaN and infinities, and for other shapes
    and numbers of passages; OSError for a full disk.
    """
    offsets = offsets_of(np.array(lengths, np.int64))
    arrays = create_arrays(path, _shapes(offsets, centre[None]))
    arrays["offset"][:], arrays["centre"][:] = offsets, centre
    row = -1
    for row, keys in enumerate(passages):
        shape = (lengths[row] if row < len(lengths) else 0, *centre.shape)
        if keys.shape != shape or row >= len(lengths):
            raise ValueError(f"keys of shape {keys.shape} for passage {row} where {shape} was announced")
        begin, end = offsets[row], offsets[row + 1]
        arrays["code"][begin:end], arrays["scale"][begin:end] = to_codes(keys - centre)
    if row + 1 != len(lengths):
        raise ValueError(f"keys of {row + 1} passages where {len(lengths)} were announced")


class Keys:
    """Reader of a segment's keys: `rows` passages with `tokens` tokens, of `kv_heads` keys each."""

    def __init__(self, path: Path) -> None:
        self._arrays = open_arrays(path)
        self.starts: NDArray[np.int64] = self._arrays["offset"]
        self.rows = len(self.starts) - 1
        self.tokens, self.kv_heads, self.head_dim = self._arrays["code"].shape
        self._codes = self._arrays["code"].reshape(self.tokens, self.kv_heads * self.head_dim)
        self._scales: NDArray[np.uint16] = self._arrays["scale"]
        self.centres: NDArray[np.float32] = self._arrays["centre"]
        self.centre_of_row: NDArray[np.uint32] = self._arrays["centre_of_row"]

    @property
    def bytes(self) -> int:
        """Size of everything that is stored."""
        return sum(array.nbytes for array in self._arrays.values())

    def lengths(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """How many tokens some rows have."""
        sizes: NDArray[np.int64] = self.starts[rows + 1] - self.starts[rows]
        return sizes

    def keys(self, row: int) -> NDArray[np.float32]:
        """The keys of a row, float32 [t, kv_heads, head_dim]."""
        begin, end = self.starts[row : row + 2].tolist()
        codes = self._arrays["code"][begin:end]
        steps = scale_values(self._scales[begin:end])[:, :, None]
        decoded: NDArray[np.float32] = codes * steps + self.centres[self.centre_of_row[row]]
        return decoded

    def partials(
        self, asked: KeyRows, rows: NDArray[np.int64], products: Products
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """What `combine` needs of some rows, in the order given: largest logits and sums, float32 [n, q]
        each.

        A sum is of exp(logit - largest) over the row's tokens. Of a row without tokens the largest is minus
        infinity and the sum 0.
        """
        self._check(asked)
        peaks = np.full((len(rows), len(asked.weights)), np.float32(-np.inf))
        sums = np.zeros_like(peaks)
        for begin, end, offsets in blocks(self.lengths(rows), TOGETHER):
            if offsets[-1] == 0:
                continue
            codes, scales = self._gathered(rows[begin:end], int(offsets[-1]))
            for group in asked.groups:
                found = products(group.codes, codes[group.head])
                of_block = (peaks[begin:end], sums[begin:end])
                kernel.partials(found, group.steps, scales[group.head], offsets, group.columns, *of_block)
        return peaks + self._common(asked)[self.centre_of_row[rows]], sums

    def _common(self, asked: KeyRows) -> NDArray[np.float32]:
        """What a question's vectors have of every centre, float32 [centres, q], always the same of one."""
        common = np.empty((len(self.centres), len(asked.weights)), np.float32)
        for group in asked.groups:
            of_head = self.centres[:, None, group.head].astype(np.float64)
            common[:, group.columns] = (of_head * group.vectors).sum(axis=2)
        return common

    def attention(self, asked: KeyRows, row: int, products: Products) -> NDArray[np.float32]:
        """What each of a row's tokens has of the question's attention to the row alone, float32 [t].

        The sum over the question's vectors of their softmax over the row's tokens, times their weights.
        """
        self._check(asked)
        t = int(self.lengths(np.array([row]))[0])
        mass = np.zeros(t)
        codes, scales = self._gathered(np.array([row]), t)
        for group in asked.groups if t else ():
            found, weights = products(group.codes, codes[group.head]), asked.weights[group.columns]
            kernel.masses(found, group.steps, scales[group.head], weights, mass)
        return mass.astype(np.float32)

    def _gathered(self, rows: NDArray[np.int64], tokens: int) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
        """Codes int8 [kv_heads, tokens, head_dim] and scales float32 [kv_heads, tokens] of some rows."""
        codes, scales = SCRATCH.room(self.kv_heads, tokens, self.head_dim)
        kernel.gather(self._codes, self._scales, self.starts, np.array(rows, np.int64), codes, scales)
        return codes, scales

    def _check(self, asked: KeyRows) -> None:
        for group in asked.groups:
            if group.codes.shape[1] != self.head_dim or not 0 <= group.head < self.kv_heads:
                raise ValueError(
                    f"a question of {group.codes.shape[1]} dimensions to head {group.head} for keys of "
                    f"{self.kv_heads} heads and {self.head_dim} dimensions"
                )


def merge_keys(path: Path, parts: Sequence[tuple[Keys, NDArray[np.bool_]]]) -> None:
    """Write the kept rows of several files in order, byte for byte; centres that differ are all kept.

    ValueError for files of other shapes.
    """
    first = parts[0][0]
    for keys, _ in parts:
        if (keys.kv_heads, keys.head_dim) != (first.kv_heads, first.head_dim):
            raise ValueError(
                f"keys of {keys.kv_heads} heads and {keys.head_dim} dimensions cannot be merged with those "
                f"of {first.kv_heads} and {first.head_dim}"
            )
    offsets = offsets_of(np.concatenate([np.diff(keys.starts)[keep] for keys, keep in parts]))
    centres, renumbered = _united([keys for keys, _ in parts])
    arrays = create_arrays(path, _shapes(offsets, centres))
    arrays["offset"][:], arrays["centre"][:] = offsets, centres
    arrays["centre_of_row"][:] = np.concatenate(
        [numbers[keys.centre_of_row[keep]] for (keys, keep), numbers in zip(parts, renumbered, strict=True)]
    )
    for name in ("code", "scale"):
        at = 0
        for keys, keep in parts:
            for some in kept(keys._arrays[name], keys.starts, keep):
                arrays[name][at : at + len(some)] = some
                at += len(some)


class Scratch(threading.local):
    """Room for the keys that a thread multiplies; it grows to what the largest block needs."""

    def __init__(self) -> None:
        self._codes, self._scales = np.empty(0, np.int8), np.empty(0, np.float32)

    def room(self, heads: int, tokens: int, dim: int) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
        """Codes [heads, tokens, dim] and scales [heads, tokens], with anything in them."""
        keys = heads * tokens
        if len(self._codes) < keys * dim:
            self._codes = np.empty(keys * dim, np.int8)
        if len(self._scales) < keys:
            self._scales = np.empty(keys, np.float32)
        return self._codes[: keys * dim].reshape(heads, tokens, dim), self._scales[:keys].reshape(
            heads, tokens
        )


SCRATCH = Scratch()


def _group(vectors: NDArray[np.float32], kv_heads: NDArray[np.int64], head: int) -> Group:
    """The vectors of one head in two planes: what the first leaves is at most half a step of it."""
    columns = np.flatnonzero(kv_heads == head)
    some = vectors[columns].astype(np.float64)
    steps = np.abs(some).max(axis=1, initial=0) / (LARGEST * kernel.FINE)
    units = np.where(steps > 0, steps, 1)[:, None]
    first = np.rint(some / (kernel.FINE * units))
    second = np.rint(some / units - kernel.FINE * first)
    codes = np.concatenate([first, second]).astype(np.int8)
    return Group(head, vectors[columns].astype(np.float32), codes, steps.astype(np.float32), columns)


def _shapes(offsets: NDArray[np.int64], centres: NDArray[np.float32]) -> dict[str, tuple[Any, Sequence[int]]]:
    tokens, (_, kv_heads, head_dim) = int(offsets[-1]), centres.shape
    return {
        "offset": (offsets.dtype, offsets.shape),
        "centre": (np.dtype(np.float32), centres.shape),
        "centre_of_row": (np.dtype(np.uint32), (len(offsets) - 1,)),
        "code": (np.dtype(np.int8), (tokens, kv_heads, head_dim)),
        "scale": (np.dtype(np.uint16), (tokens, kv_heads)),
    }


def _united(parts: Sequence[Keys]) -> tuple[NDArray[np.float32], list[NDArray[np.uint32]]]:
    """Every centre once, [centres, kv_heads, head_dim], and for each part the new numbers of its own."""
    centres: dict[bytes, int] = {}
    numbers = [
        np.array([centres.setdefault(each.tobytes(), len(centres)) for each in part.centres], np.uint32)
        for part in parts
    ]
    together = np.frombuffer(b"".join(centres), np.float32)
    return together.reshape(-1, parts[0].kv_heads, parts[0].head_dim), numbers
