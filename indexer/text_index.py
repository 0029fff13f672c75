"""The worker's side of tantivy: its working directory follows the published generations, never leads them.

tantivy commits on its own; a crash between its commit and ours would leave it ahead, so its directory is
made again from the published snapshot whenever it is opened.
"""

import errno
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from indexer.part import Part
from indexer.segment.analyzer import Analyzer
from indexer.segment.durable import fsync_directory, fsync_file
from indexer.segment.fulltext import COPIED, FulltextWriter, link_snapshot, measure_snapshot, relink_working
from indexer.segment.manifest import LexicalEntry


class TextIndex:
    """The full-text index of the collection in `directory`, as it was `published` last."""

    def __init__(self, directory: Path, published: LexicalEntry | None, analyzer: Analyzer) -> None:
        self._directory = directory
        self._published = published
        self._working = directory / "tantivy"
        relink_working(directory / published.directory if published else None, self._working)
        with _explained(self._working):
            self._writer = FulltextWriter(self._working, analyzer)

    def change(self, generation: int, gone: NDArray[np.int64], fresh: Sequence[Part]) -> LexicalEntry:
        """Take passages out by number, put all of some new segments in; give the snapshot, on the disk."""
        with _explained(self._working):
            self._writer.delete(gone.tolist())
            for part in fresh:
                self._add(part)
            self._writer.commit()
        target = self._directory / f"lexical-{generation:06d}"
        link_snapshot(self._working, target)
        known = self._published.files if self._published else {}
        files = measure_snapshot(target, known)
        for name in (files.keys() - known.keys()) | set(
            COPIED
        ):  # what is known was brought to the disk before
            fsync_file(target / name)
        fsync_directory(target)
        fsync_directory(self._directory)
        self._published = LexicalEntry(directory=target.name, files=files)
        return self._published

    def close(self) -> None:
        """Let the working directory go. What tantivy cannot finish in it is of no use to anybody any more."""
        with suppress(ValueError):
            self._writer.close()

    def _add(self, part: Part) -> None:
        store = part.segment.store
        for number in range(store.documents):
            document = store.document(number)
            for row in store.rows_of(number):
                begin, end = store.spans[row].tolist()
                seq = int(store.seqs[row])
                self._writer.add(seq, document["id"], document["title"], document["text"][begin:end])


@contextmanager
def _explained(working: Path) -> Iterator[None]:
    """Raise OSError for what tantivy, whose input is always valid here, raises as ValueError."""
    try:
        yield
    except ValueError as error:
        raise OSError(errno.EIO, f"the full-text index cannot be written: {error}", str(working)) from error
