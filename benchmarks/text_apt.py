"""Packages of text, downloaded by apt and unpacked into a folder without being installed."""

import subprocess
from pathlib import Path

from benchmarks.sparse_texts import READER, MissingDataError


def unpacked(package: str, cache: Path) -> Path:
    """Return the folder of a package's files, downloading it once; `cache` keeps both.

    Raises:
        MissingDataError: apt has no such package or no network; the message has apt's own words.

    """
    folder = cache / "root" / package
    if not folder.is_dir():
        archive = _archive(package, cache) or _downloaded(package, cache)
        folder.mkdir(parents=True)
        _run(["dpkg-deb", "-x", str(archive), str(folder)], cache)
    return folder


def version(package: str, cache: Path) -> str:
    """Return name and version of an unpacked package, as its archive says."""
    archive = _archive(package, cache) or _downloaded(package, cache)
    return f"{package} {_run(['dpkg-deb', '-f', str(archive), 'Version'], cache).strip()}"


def translations(cache: Path) -> str:
    """Return the lists of English package descriptions, kept in `cache` apart from the system's own lists."""
    lists = cache / "lists"
    if not list(lists.glob("*_i18n_Translation-en*")):
        (lists / "partial").mkdir(parents=True, exist_ok=True)
        _run(["apt-get", "update", "-o", "Acquire::Languages=en", "-o", f"Dir::State::lists={lists}"], cache)
    return _run([READER, "cat-file", *map(str, sorted(lists.glob("*_i18n_Translation-en*")))], cache)


def _archive(package: str, cache: Path) -> Path | None:
    return next(iter(sorted((cache / "debs").glob(f"{package}_*.deb"))), None)


def _downloaded(package: str, cache: Path) -> Path:
    folder = cache / "debs"
    folder.mkdir(parents=True, exist_ok=True)
    _run(["apt-get", "download", "-q", package], folder)
    archive = _archive(package, cache)
    if archive is None:
        raise MissingDataError(f"apt-get download {package} left no {package}_*.deb in {folder}")
    return archive


def _run(command: list[str], folder: Path) -> str:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    if done.returncode:
        raise MissingDataError(f"{' '.join(command)} failed: {done.stderr.strip()} (try apt-get update)")
    return done.stdout
