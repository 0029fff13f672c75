"""Keys and values as 8-bit codes: compiled, serial, without the GIL.

A vector is stored as its difference from a centre: int8 codes and one scale, whose upper 16 bits are kept, a
bfloat16. It is rounded up before the codes are made of it, so rounding costs no code its range and moves no
component by more than half a scale. numba knows no bfloat16, so numbers come and go as their bits, in uint16
or, of float32, uint32 and float32.

Loops over vectors are in functions of many vectors: passing one array to a function that is not inlined costs
as much as decoding a vector of 64 components.
"""

from typing import Any

import numpy as np
from numba import njit, types
from numba.extending import overload
from numpy.typing import NDArray

LARGEST = np.float32(127)
ABSOLUTE = np.uint32(0x7FFFFFFF)
INFINITE = np.uint32(0x7F800000)  # no finite float32 has larger bits, the sign aside
HALF_BFLOAT16 = np.uint32(0x7FFF)  # not quite: the last bit kept decides where both are as near
BELOW_BFLOAT16 = np.uint32(0xFFFF)
HIGH = np.uint32(16)


def _float32_bits(bits):  # type: ignore[no-untyped-def]  # numba wants the very signature of what stands for it
    """The bits of a component as float32: of uint16 those of bfloat16, of uint32 its own."""
    return np.uint32(bits) << HIGH if isinstance(bits, np.uint16) else bits


@overload(_float32_bits)
def _float32_bits_of(bits):  # type: ignore[no-untyped-def]
    if bits == types.uint16:
        return lambda bits: np.uint32(np.uint32(bits) << HIGH)
    return (lambda bits: bits) if bits == types.uint32 else None


def _in_format(value, like):  # type: ignore[no-untyped-def]
    """A float32 as what an array holds: itself, or the bits of the nearest bfloat16, of two the even one."""
    return _nearest_bfloat16(value) if isinstance(like, np.uint16) else value


@overload(_in_format)
def _in_format_of(value, like):  # type: ignore[no-untyped-def]
    if like == types.uint16:
        return lambda value, like: _nearest_bfloat16(value)
    return (lambda value, like: value) if like == types.float32 else None


@njit(nogil=True, cache=True)
def _nearest_bfloat16(value: np.float32) -> np.uint16:
    bits = np.float32(value).view(np.uint32)
    odd = np.uint32(np.uint32(bits >> HIGH) & np.uint32(1))
    return np.uint16(np.uint32(np.uint32(bits + np.uint32(HALF_BFLOAT16 + odd)) >> HIGH))


@njit(nogil=True, cache=True)
def encode(
    bits: NDArray[Any],
    first: int,
    centres: NDArray[np.float32],
    codes: NDArray[np.int8],
    scales: NDArray[np.uint16],
    pages: NDArray[np.int64],
    begins: NDArray[np.int64],
    counts: NDArray[np.int64],
) -> bool:
    """Write one document's vectors into pages, every second plane from `first`; whether all are finite.

    `bits`, uint16 or uint32 [planes, heads, tokens, dim], are those of bfloat16 or float32; `centres` is
    [planes, heads, dim] of the pages' planes. `codes` is [pages, planes, heads, tokens of a page, dim], and
    `scales` the same without dim. Page `pages[i]` gets `counts[i]` tokens from the document's `begins[i]`.
    """
    finite = True
    for plane in range(bits.shape[0]):
        for head in range(bits.shape[1]):
            vectors = bits[plane, head]
            for i in range(len(pages)):
                place, begin, end = 2 * plane + first, begins[i], begins[i] + counts[i]
                out, out_scales = codes[pages[i], place, head], scales[pages[i], place, head]
                flat = vectors[begin:end].reshape(-1)
                finite &= _encode(flat, centres[place, head], out, out_scales)
    return finite


@njit(nogil=True, cache=True)
def _encode(
    bits: NDArray[Any], centre: NDArray[np.float32], codes: NDArray[np.int8], scales: NDArray[np.uint16]
) -> bool:
    """Fill the first of `codes`, int8 [tokens, dim], and `scales`; whether the vectors are finite."""
    dim, finite = len(centre), True
    for token in range(len(bits) // dim):
        vector, out, largest = bits[token * dim : (token + 1) * dim], codes[token], np.uint32(0)
        for i in range(dim):
            value = np.uint32(_float32_bits(vector[i])).view(np.float32) - centre[i]  # type: ignore[no-untyped-call]
            largest = max(largest, np.uint32(np.float32(value).view(np.uint32) & ABSOLUTE))
        if largest >= INFINITE:
            finite, largest = False, np.uint32(0)
        step = np.float32(np.uint32(largest).view(np.float32) / LARGEST).view(np.uint32)
        scales[token] = np.uint16(np.uint32(np.uint32(step + BELOW_BFLOAT16) >> HIGH))
        scale = np.uint32(np.uint32(scales[token]) << HIGH).view(np.float32)
        if scale == 0:
            scale = np.float32(np.inf)  # of what is too small for a scale nothing is left
        for i in range(dim):
            value = np.uint32(_float32_bits(vector[i])).view(np.float32) - centre[i]  # type: ignore[no-untyped-call]
            out[i] = np.int8(np.rint(value / scale))
    return finite


@njit(nogil=True, cache=True)
def decode(
    centres: NDArray[np.float32],
    codes: NDArray[np.int8],
    scales: NDArray[np.uint16],
    plane: int,
    pages: NDArray[np.int64],
    begins: NDArray[np.int64],
    counts: NDArray[np.int64],
    out: NDArray[Any],
    stride: int,
) -> None:
    """Write one plane of pages to `out`: `counts[i]` tokens of page `pages[i]` from token `begins[i]` on.

    `out` is flat, float32 or the bits of bfloat16 in uint16; head h begins at `h * stride`.
    """
    heads, dim = codes.shape[2], codes.shape[4]
    for i in range(len(pages)):
        count = counts[i]
        for head in range(heads):
            at = head * stride + begins[i] * dim
            page, of_page = codes[pages[i], plane, head, :count], scales[pages[i], plane, head]
            _decode(centres[plane, head], page, of_page, out[at : at + count * dim])


@njit(nogil=True, cache=True)
def _decode(
    centre: NDArray[np.float32], codes: NDArray[np.int8], scales: NDArray[np.uint16], out: NDArray[Any]
) -> None:
    dim = codes.shape[1]
    for token in range(len(codes)):
        scale = np.uint32(np.uint32(scales[token]) << HIGH).view(np.float32)
        vector, target = codes[token], out[token * dim : (token + 1) * dim]
        for i in range(dim):
            value = np.float32(np.float32(vector[i]) * scale + centre[i])
            target[i] = _in_format(value, target[i])  # type: ignore[no-untyped-call]


ENTRIES = (encode, decode)
"""What is called from Python."""


def compiled_signatures() -> int:
    """How many versions of the entries are compiled; it stays as it is after `warm`."""
    return sum(len(entry.signatures) for entry in ENTRIES)


def warm() -> None:
    """Compile, or load from the cache, every entry for both number formats."""
    codes, scales = np.zeros((1, 2, 1, 1, 1), np.int8), np.zeros((1, 2, 1, 1), np.uint16)
    page, count, centres = np.zeros(1, np.int64), np.ones(1, np.int64), np.zeros((2, 1, 1), np.float32)
    for bits, out in ((np.uint16, np.uint16), (np.uint32, np.float32)):
        encode(np.zeros((1, 1, 1, 1), bits), 0, centres, codes, scales, page, page, count)
        decode(centres, codes, scales, 0, page, page, count, np.zeros(1, out), 1)
