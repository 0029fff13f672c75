"""Strings to numbers: a sorted array of 64-bit hashes, verified against the strings themselves.

A string's number is its place in the list that was written, so the caller
chooses the order (terms: sorted; ids: as the documents come). Looking up is a
binary search in one mapped array whatever the lengths of the strings, and a
true collision of hashes costs one more comparison, never a wrong answer.
"""

from collections.abc import Callable, Iterable, Sequence
from hashlib import blake2b
from itertools import accumulate, pairwise

import numpy as np
from numpy.typing import NDArray

from indexer.kernels.find import find
from indexer.segment.arrays import Arrays

Digest = Callable[[bytes], bytes]


def digest64(string: bytes) -> bytes:
    """The eight bytes that stand for a string."""
    return blake2b(string, digest_size=8).digest()


def write_dictionary(strings: Sequence[str], prefix: str, digest: Digest = digest64) -> Arrays:
    """Arrays `PREFIX_hash, PREFIX_number, PREFIX_offset, PREFIX_bytes` of distinct strings.

    Raises ValueError when a string is there twice.
    """
    encoded = [string.encode() for string in strings]
    hashes = _hashes(encoded, digest)
    order = np.argsort(hashes, kind="stable").astype(np.uint32)
    _check_distinct(encoded, hashes[order], order)
    offsets, blob = _packed(encoded)
    return {
        f"{prefix}_hash": hashes[order],
        f"{prefix}_number": order,
        f"{prefix}_offset": offsets,
        f"{prefix}_bytes": blob,
    }


class Dictionary:
    """Reader of what `write_dictionary` made; `digest` must be the one it was written with."""

    def __init__(self, arrays: Arrays, prefix: str, digest: Digest = digest64) -> None:
        self._hashes: NDArray[np.uint64] = arrays[f"{prefix}_hash"]
        self._numbers: NDArray[np.uint32] = arrays[f"{prefix}_number"]
        self._offsets: NDArray[np.uint64] = arrays[f"{prefix}_offset"]
        self._bytes: NDArray[np.uint8] = arrays[f"{prefix}_bytes"]
        self._digest = digest

    def __len__(self) -> int:
        return len(self._numbers)

    def find(self, strings: Iterable[str]) -> NDArray[np.int64]:
        """Number of every string, -1 for the absent."""
        encoded = [string.encode() for string in strings]
        offsets, blob = _packed(encoded)
        hashes = _hashes(encoded, self._digest)
        numbers: NDArray[np.int64] = find(
            self._hashes, self._numbers, self._offsets, self._bytes, hashes, offsets, blob
        )
        return numbers

    def string(self, number: int) -> str:
        """The string of a number."""
        begin, end = self._offsets[number : number + 2].tolist()
        return self._bytes[begin:end].tobytes().decode()

    def strings(self) -> list[str]:
        """All strings in the order of their numbers."""
        blob, offsets = self._bytes.tobytes(), self._offsets.tolist()
        return [blob[a:b].decode() for a, b in pairwise(offsets)]


def _hashes(encoded: list[bytes], digest: Digest) -> NDArray[np.uint64]:
    return np.frombuffer(b"".join(map(digest, encoded)), dtype="<u8")


def _packed(encoded: list[bytes]) -> tuple[NDArray[np.uint64], NDArray[np.uint8]]:
    offsets = np.fromiter(accumulate(map(len, encoded), initial=0), np.uint64, len(encoded) + 1)
    return offsets, np.frombuffer(b"".join(encoded), np.uint8)


def _check_distinct(encoded: list[bytes], hashes: NDArray[np.uint64], order: NDArray[np.uint32]) -> None:
    """Only neighbours of one hash can be equal, and they are few."""
    seen: set[bytes] = set()
    same = np.flatnonzero(hashes[1:] == hashes[:-1])
    for number in np.union1d(order[same], order[same + 1]).tolist():
        if encoded[number] in seen:
            raise ValueError(f"{encoded[number].decode()!r} is there twice")
        seen.add(encoded[number])
