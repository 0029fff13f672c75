"""Removes files that no kept generation names: what a crash left behind, and what is superseded for good.

What cannot be removed now is left for the next time: tantivy readers of another process may still be
creating lock files in a directory that is being removed.
"""

import logging
import shutil
from collections.abc import Collection, Iterator
from pathlib import Path

from indexer.segment.manifest import Manifest, manifest_name

logger = logging.getLogger(__name__)


def sweep(directory: Path, kept: Collection[Manifest], spared: Collection[str] = ()) -> list[Path]:
    """Remove everything in a collection's directory that belongs to no generation of `kept`; give what it is.

    `spared` names segments that are being written. The log, the lock, `CURRENT` and tantivy's working
    directory are nobody's garbage.
    """
    reachable = {directory / manifest_name(manifest.generation) for manifest in kept}
    for manifest in kept:
        reachable.update(_named(directory, manifest))
    reachable.update(directory / "segments" / name for name in spared)
    garbage = sorted(set(_sweepable(directory)) - reachable)
    for path in garbage:
        try:
            _remove(path)
        except OSError as error:
            logger.warning("%s: %s cannot be removed yet: %s", directory.name, path.name, error)
    return garbage


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()


def _named(directory: Path, manifest: Manifest) -> Iterator[Path]:
    if manifest.lexical is not None:
        yield directory / manifest.lexical.directory
    for entry in manifest.segments:
        yield directory / "segments" / entry.name
        if entry.tombstones is not None:
            yield directory / "tombstones" / entry.tombstones


def _sweepable(directory: Path) -> Iterator[Path]:
    for pattern in ("segments/*", "tombstones/*", "lexical-*", "manifest-*.json", "CURRENT.tmp"):
        yield from directory.glob(pattern)
