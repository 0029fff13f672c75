"""Named numpy arrays in one file, mapped rather than read.

Layout: a fixed header (magic, version, length and CRC of the table of
contents), the table as JSON, the arrays each on a 64-byte boundary, a footer
that repeats the file's size. Opening reads only header, table and footer, so
a torn or truncated file is found at once and a large one opens in
microseconds; flipped bytes inside an array are found by the manifest's
checksums (`segment.verify_files`).

Files are mapped copy-on-write: nobody writes to the arrays, but torch warns
about arrays marked read-only.
"""

import json
import math
import os
import struct
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

MAGIC = b"WINNOWA\n"
END = b"WINNOWZ\n"
VERSION = 1
ALIGNMENT = 64
HEADER = struct.Struct("<8sIII12x")  # magic, version, bytes of the table, its CRC-32
FOOTER = struct.Struct("<8sQ")  # magic, bytes of the whole file

Arrays = dict[str, np.ndarray[Any, Any]]


class CorruptFile(Exception):  # noqa: N818 - it says a state
    """A file of the index is not what was written; the message names the file and the fault."""


def write_arrays(path: Path, arrays: Mapping[str, np.ndarray[Any, Any]]) -> None:
    """Write `arrays` to `path` under its final name; the caller synchronises it.

    Arrays are stored little-endian and C-contiguous. Nothing may refer to `path` yet.
    """
    stored = {name: _storable(array) for name, array in arrays.items()}
    table, size = _table(stored)
    with path.open("wb") as file:
        file.write(HEADER.pack(MAGIC, VERSION, len(table), zlib.crc32(table)))
        file.write(table)
        for array in stored.values():
            file.write(b"\0" * (-file.tell() % ALIGNMENT))
            file.write(array.reshape(-1).view(np.uint8).data)
        file.write(b"\0" * (-file.tell() % ALIGNMENT))
        file.write(FOOTER.pack(END, size))


def create_arrays(path: Path, shapes: Mapping[str, tuple[Any, Sequence[int]]]) -> Arrays:
    """Make a file of arrays of these types and shapes, all zero, and map it to be filled.

    For arrays too large to be held beside those they are made from. The whole file has its place on the
    disk when this returns (or OSError), so that filling it cannot fail; it is finished once the arrays are.
    """
    table, size = _table_of({name: (np.dtype(kind), tuple(shape)) for name, (kind, shape) in shapes.items()})
    with path.open("w+b") as file:
        os.posix_fallocate(file.fileno(), 0, size)
        file.write(HEADER.pack(MAGIC, VERSION, len(table), zlib.crc32(table)))
        file.write(table)
        file.seek(size - FOOTER.size)
        file.write(FOOTER.pack(END, size))
    whole: np.ndarray[Any, Any] = np.memmap(path, dtype=np.uint8, mode="r+").view(np.ndarray)
    return {name: _view(whole, entry) for name, entry in _read_table(path, whole)["arrays"].items()}


def open_arrays(path: Path) -> Arrays:
    """The arrays of a file, mapped copy-on-write (one mapping for all of them).

    Raises CorruptFile naming what is wrong; FileNotFoundError when there is no such file.
    """
    whole = _map(path)
    table = _read_table(path, whole)
    _check_footer(path, whole, table["size"])
    return {name: _view(whole, entry) for name, entry in table["arrays"].items()}


def _storable(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    if array.dtype.kind not in "biuf":
        raise TypeError(f"only numbers and booleans can be stored, not {array.dtype}")
    return np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))


def _table(arrays: Arrays) -> tuple[bytes, int]:
    return _table_of({name: (array.dtype, array.shape) for name, array in arrays.items()})


def _table_of(shapes: Mapping[str, tuple[np.dtype[Any], Sequence[int]]]) -> tuple[bytes, int]:
    """Table of contents and size of the whole file. Offsets count from the first array."""
    entries, offset = {}, 0
    for name, (kind, shape) in shapes.items():
        entries[name] = {"dtype": kind.newbyteorder("<").str, "shape": list(shape), "offset": offset}
        size = math.prod(shape) * kind.itemsize
        offset += size + (-size % ALIGNMENT)
    # The size is written with a fixed width since the table's own length depends on it.
    draft = json.dumps({"arrays": entries, "size": " " * 20}).encode()
    size = _data_start(len(draft)) + offset + FOOTER.size
    return json.dumps({"arrays": entries, "size": f"{size:>20}"}).encode(), size


def _data_start(table_bytes: int) -> int:
    used = HEADER.size + table_bytes
    return used + (-used % ALIGNMENT)


def _map(path: Path) -> np.ndarray[Any, Any]:
    size = path.stat().st_size
    if size < HEADER.size + FOOTER.size:
        raise CorruptFile(f"{path}: {size} bytes are too few for an array file; it is truncated")
    whole: np.ndarray[Any, Any] = np.memmap(path, dtype=np.uint8, mode="c").view(np.ndarray)
    return whole


def _read_table(path: Path, whole: np.ndarray[Any, Any]) -> dict[str, Any]:
    magic, version, length, crc = HEADER.unpack(whole[: HEADER.size].tobytes())
    if magic != MAGIC:
        raise CorruptFile(f"{path}: the header is not that of an array file")
    if version != VERSION:
        raise CorruptFile(f"{path}: format version {version}; this program reads version {VERSION}")
    raw = whole[HEADER.size : HEADER.size + length].tobytes()
    if zlib.crc32(raw) != crc:
        raise CorruptFile(f"{path}: the table of contents does not match its checksum")
    table: dict[str, Any] = json.loads(raw)
    start = _data_start(length)
    for entry in table["arrays"].values():
        entry["offset"] += start
    table["size"] = int(table["size"])
    return table


def _check_footer(path: Path, whole: np.ndarray[Any, Any], size: int) -> None:
    if len(whole) != size:
        raise CorruptFile(f"{path}: {len(whole)} bytes long where the table of contents says {size}")
    if whole[-FOOTER.size :].tobytes() != FOOTER.pack(END, size):
        raise CorruptFile(f"{path}: the footer is damaged")


def _view(whole: np.ndarray[Any, Any], entry: dict[str, Any]) -> np.ndarray[Any, Any]:
    dtype, shape = np.dtype(entry["dtype"]), tuple(entry["shape"])
    begin = entry["offset"]
    end = begin + int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
    array: np.ndarray[Any, Any] = whole[begin:end].view(dtype).reshape(shape)
    return array
