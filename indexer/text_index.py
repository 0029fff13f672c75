"""The worker's side of tantivy: its working directory follows the published generations, never leads them.

tantivy commits on its own; a crash between its commit and ours would leave it ahead, so its directory is
made again from the published snapshot whenever it is opened.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from indexer.part import Part
from indexer.segment.analyzer import Analyzer
from indexer.segment.durable import fsync_directory, fsync_tree
from indexer.segment.fulltext import FulltextWriter, link_snapshot, measure_snapshot, relink_working
from indexer.segment.manifest import LexicalEntry


class TextIndex:
    """The full-text index of the collection in `directory`, as it was `published` last."""

    def __init__(self, directory: Path, published: LexicalEntry | None, analyzer: Analyzer) -> None:
        self._directory = directory
        self._published = published
        working = directory / "tantivy"
        relink_working(directory / published.directory if published else None, working)
        self._working = working
        self._writer = FulltextWriter(working, analyzer)

    def change(self, generation: int, gone: NDArray[np.int64], fresh: Sequence[Part]) -> LexicalEntry:
        """Take passages out by number, put all of some new segments in; give the snapshot, on the disk."""
        self._writer.delete(gone.tolist())
        for part in fresh:
            self._add(part)
        self._writer.commit()
        target = self._directory / f"lexical-{generation:06d}"
        link_snapshot(self._working, target)
        fsync_tree(target)
        fsync_directory(self._directory)
        known = self._published.files if self._published else {}
        self._published = LexicalEntry(directory=target.name, files=measure_snapshot(target, known))
        return self._published

    def close(self) -> None:
        """Let the working directory go."""
        self._writer.close()

    def _add(self, part: Part) -> None:
        store = part.segment.store
        for number in range(store.documents):
            document = store.document(number)
            for row in store.rows_of(number):
                begin, end = store.spans[row].tolist()
                seq = int(store.seqs[row])
                self._writer.add(seq, document["id"], document["title"], document["text"][begin:end])
