"""Where backups are kept: a directory, or whatever fsspec opens by a URL.

A repository is a tree of files that are written whole and never changed. One in a directory is on the disk
when a write returns. One elsewhere is as safe as that store: what it says is taken over as it is, since every
file of a backup is checked when it comes back.
"""

import os
import secrets
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from indexer.segment.arrays import CorruptFile
from indexer.segment.durable import fsync_directory, fsync_file

LOCAL = ("file://", "local://")


class RepositoryError(OSError):
    """A repository cannot be read or written; `errno` says why where that is known."""


class Repository(Protocol):
    """Paths have `/` between their parts. Every method may raise RepositoryError."""

    def sizes(self, folder: str) -> dict[str, int]:
        """Return the files directly in a folder and how long each is; none if there is no such folder."""
        ...

    def read(self, path: str) -> bytes:
        """Return what a small file holds. FileNotFoundError, CorruptFile if it is no plain file."""
        ...

    def download(self, path: str, target: Path) -> None:
        """Copy a file into a new one here, which is not synchronised. FileNotFoundError, CorruptFile."""
        ...

    def upload(self, source: Path, path: str) -> None:
        """Copy a file from here, in place of one that may be there."""
        ...

    def remove(self, path: str) -> None:
        """Remove a file, if it is there."""
        ...


class Directory:
    """A repository below `root`, which is made by the first upload."""

    def __init__(self, name: str, root: Path) -> None:
        self._name = name
        self._root = root

    def sizes(self, folder: str) -> dict[str, int]:
        """See `Repository.sizes`. Links are not counted as files."""
        with self._explained():
            try:
                entries = list(os.scandir(self._root / folder))
            except FileNotFoundError:
                return {}
            return {each.name: each.stat().st_size for each in entries if each.is_file(follow_symlinks=False)}

    def read(self, path: str) -> bytes:
        """See `Repository.read`."""
        with self._explained():
            return self._plain(path).read_bytes()

    def download(self, path: str, target: Path) -> None:
        """See `Repository.download`."""
        with self._explained():
            shutil.copyfile(self._plain(path), target)

    def upload(self, source: Path, path: str) -> None:
        """See `Repository.upload`."""
        target = self._root / path
        part = target.with_name(f".{secrets.token_hex(8)}.part")
        with self._explained():
            _make(target.parent)
            try:
                shutil.copyfile(source, part)
                fsync_file(part)
                os.replace(part, target)  # noqa: PTH105 - as in `durable`
            finally:
                part.unlink(missing_ok=True)
            fsync_directory(target.parent)

    def remove(self, path: str) -> None:
        """See `Repository.remove`."""
        with self._explained():
            (self._root / path).unlink(missing_ok=True)

    def _plain(self, path: str) -> Path:
        """Follow no link, which may lead anywhere, and open no pipe, which may never end."""
        found = self._root / path
        if not stat.S_ISREG(found.lstat().st_mode):
            raise CorruptFile(f"{path} is a link, or no plain file, and is not read")
        return found

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError:
            raise
        except OSError as error:
            raise RepositoryError(
                error.errno, f"repository {self._name!r} does not work: {error.strerror}", error.filename
            ) from error


class Remote:
    """A repository below a URL that fsspec opens. For one thread at a time."""

    def __init__(self, name: str, url: str) -> None:
        from fsspec.core import url_to_fs

        self._name = name
        with self._explained():
            self._files, self._root = url_to_fs(url, skip_instance_cache=True)

    def sizes(self, folder: str) -> dict[str, int]:
        """See `Repository.sizes`."""
        with self._explained():
            self._files.invalidate_cache()
            try:
                entries = self._files.ls(self._at(folder), detail=True)
            except FileNotFoundError:
                return {}
            return {
                each["name"].rsplit("/", 1)[-1]: each["size"] for each in entries if each["type"] == "file"
            }

    def read(self, path: str) -> bytes:
        """See `Repository.read`."""
        with self._explained():
            content: bytes = self._files.cat_file(self._at(path))
            return content

    def download(self, path: str, target: Path) -> None:
        """See `Repository.download`."""
        with self._explained():
            self._files.get_file(self._at(path), str(target))

    def upload(self, source: Path, path: str) -> None:
        """See `Repository.upload`. What an upload that failed left is of another size, and not believed."""
        with self._explained():
            self._files.put_file(str(source), self._at(path))

    def remove(self, path: str) -> None:
        """See `Repository.remove`."""
        with self._explained():
            try:
                self._files.rm_file(self._at(path))
            except FileNotFoundError:
                return

    def _at(self, path: str) -> str:
        return f"{self._root.rstrip('/')}/{path}"

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """What went wrong, as a RepositoryError."""
        try:
            yield
        except FileNotFoundError:
            raise
        except Exception as error:  # stores raise what they like
            raise RepositoryError(
                f"repository {self._name!r} does not work: {type(error).__name__}: {error}"
            ) from error


def open_repository(name: str, place: str) -> Repository:
    """Open the repository in a directory, or at a URL, that is known by this name. RepositoryError."""
    path = _local(place)
    return Remote(name, place) if path is None else Directory(name, path)


def check_place(place: str) -> None:
    """Raise ValueError for a URL that nothing installed can open."""
    if _local(place) is not None:
        return
    from fsspec import get_filesystem_class
    from fsspec.core import split_protocol

    try:
        get_filesystem_class(split_protocol(place)[0])
    except (ImportError, ValueError) as error:  # which name the package to install, or the protocol
        raise ValueError(f"{place} cannot be opened: {error}") from error


def _local(place: str) -> Path | None:
    """The directory that a place is, if it is one."""
    for scheme in LOCAL:
        place = place.removeprefix(scheme)
    return None if "://" in place else Path(place)


def _make(folder: Path) -> None:
    """Make a directory and those above it, each on the disk."""
    if not folder.is_dir():
        _make(folder.parent)
        folder.mkdir(exist_ok=True)
        fsync_directory(folder.parent)
