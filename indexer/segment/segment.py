"""A segment: one immutable directory with every component of a batch of passages.

Row i of every component is the same passage. Opening maps the files and checks
that each is as long as the manifest says, whole by its own header and footer,
and of the same number of rows as the others; it reads next to nothing.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from indexer.segment.arrays import CorruptFile
from indexer.segment.columns import Columns
from indexer.segment.dense import Dense
from indexer.segment.keys import Keys
from indexer.segment.late import Late
from indexer.segment.lexical import Lexical
from indexer.segment.manifest import SegmentEntry, check_sizes, verify_files
from indexer.segment.quality import Quality
from indexer.segment.sparse import Sparse
from indexer.segment.store import Store

__all__ = [
    "COLUMNS",
    "DENSE",
    "DOCUMENTS",
    "KEYS",
    "LATE",
    "LEXICAL",
    "QUALITY",
    "SPARSE",
    "STORE",
    "Segment",
    "open_segment",
    "verify_files",
]

STORE = "store.bin"
COLUMNS = "columns.bin"
LEXICAL = "lexical.bin"
DOCUMENTS = "documents.bin"
DENSE = "dense.bin"
SPARSE = "sparse.bin"
LATE = "late.bin"
KEYS = "keys.bin"
QUALITY = "quality.bin"


@dataclass(frozen=True)
class Segment:
    """The components of a segment; those from `lexical` on are None where the collection has none.

    `lexical` has a row a passage; `document_lexical`, where documents are scored whole, a row a document.
    `quality` says which passages have no sparse vector for want of it.
    """

    name: str
    path: Path
    rows: int
    store: Store
    columns: Columns
    lexical: Lexical | None
    document_lexical: Lexical | None
    dense: Dense | None
    sparse: Sparse | None
    late: Late | None
    keys: Keys | None
    quality: Quality | None

    def by_document(self, mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Make a mask over rows one over documents: the passages of one live, die and match together."""
        return mask[self.store.first_row[:-1]]


def open_segment(path: Path, entry: SegmentEntry) -> Segment:
    """Open the segment in directory `path`. Raises CorruptFile naming the file and what is wrong."""
    check_sizes(path, entry.files)
    store = Store(path / STORE)
    segment = Segment(
        name=entry.name,
        path=path,
        rows=store.rows,
        store=store,
        columns=Columns(path / COLUMNS, store.find),
        lexical=Lexical(path / LEXICAL) if LEXICAL in entry.files else None,
        document_lexical=Lexical(path / DOCUMENTS) if DOCUMENTS in entry.files else None,
        dense=Dense(path / DENSE) if DENSE in entry.files else None,
        sparse=Sparse(path / SPARSE) if SPARSE in entry.files else None,
        late=Late(path / LATE) if LATE in entry.files else None,
        keys=Keys(path / KEYS) if KEYS in entry.files else None,
        quality=Quality(path / QUALITY) if QUALITY in entry.files else None,
    )
    _check_rows(segment, entry)
    return segment


def _check_rows(segment: Segment, entry: SegmentEntry) -> None:
    rows = {STORE: segment.store.rows, COLUMNS: segment.columns.rows}
    if segment.lexical is not None:
        rows[LEXICAL] = segment.lexical.rows
    if segment.dense is not None:
        rows[DENSE] = segment.dense.rows
    if segment.sparse is not None:
        rows[SPARSE] = segment.sparse.rows
    if segment.late is not None:
        rows[LATE] = segment.late.rows
    if segment.keys is not None:
        rows[KEYS] = segment.keys.rows
    if segment.quality is not None:
        rows[QUALITY] = segment.quality.rows
    expected = dict.fromkeys(rows, entry.rows)
    if segment.document_lexical is not None:
        rows[DOCUMENTS], expected[DOCUMENTS] = segment.document_lexical.rows, entry.documents
    for name, found in rows.items():
        if found != expected[name]:
            raise CorruptFile(f"{segment.path / name}: {found} rows where the manifest says {expected[name]}")
