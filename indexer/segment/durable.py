"""Writes that survive a power cut.

A file is durable when its bytes *and* the directory that names it have been
synchronised. Everything in an index is written once under its final name in a
place nothing refers to yet; only small pointers are replaced, by a rename.
`os.fsync` and `os.replace` are called through the `os` module so that a test
can fail or kill at each of them.
"""

import ctypes
import os
from pathlib import Path

_HERE = -100  # AT_FDCWD: relative paths are relative to the working directory
_EXCHANGE = 2  # RENAME_EXCHANGE


def fsync_file(path: Path) -> None:
    """Bring a file's bytes to the disk."""
    _fsync(path, os.O_RDONLY)


def fsync_directory(path: Path) -> None:
    """Bring a directory's entries (names made, renamed, removed) to the disk."""
    _fsync(path, os.O_RDONLY | os.O_DIRECTORY)


def fsync_tree(path: Path) -> None:
    """Bring every file below `path`, every directory below it and itself to the disk."""
    for child in sorted(path.iterdir()):
        if child.is_dir():
            fsync_tree(child)
        else:
            fsync_file(child)
    fsync_directory(path)


def write_file(path: Path, data: bytes, mode: int = 0o666) -> None:
    """Write a new file and synchronise it; the directory is the caller's to synchronise."""
    with open(path, "wb", opener=lambda name, flags: os.open(name, flags, mode)) as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def replace_file(path: Path, data: bytes, mode: int = 0o666) -> None:
    """Replace a small file in one step: readers see the old bytes or the new ones."""
    temporary = path.with_name(path.name + ".tmp")
    write_file(temporary, data, mode)
    os.replace(temporary, path)  # noqa: PTH105 - tests patch os.replace
    fsync_directory(path.parent)


def exchange(one: Path, other: Path) -> None:
    """Let two directories swap names in one step; their parents are the caller's to synchronise.

    OSError with EINVAL where the file system cannot do that, as NFS cannot.
    """
    # From the C library, since Python has no name for it.
    rename = ctypes.CDLL(None, use_errno=True).renameat2
    if rename(_HERE, os.fsencode(one), _HERE, os.fsencode(other), _EXCHANGE) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), str(one), None, str(other))


def _fsync(path: Path, flags: int) -> None:
    descriptor = os.open(path, flags)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
