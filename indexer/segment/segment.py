"""A segment: one immutable directory with every component of a batch of passages.

Row i of every component is the same passage. Opening maps the files and checks
that each is as long as the manifest says, whole by its own header and footer,
and of the same number of rows as the others; it reads next to nothing.
"""

from dataclasses import dataclass
from pathlib import Path

from indexer.segment.arrays import CorruptFile
from indexer.segment.columns import Columns
from indexer.segment.dense import Dense
from indexer.segment.lexical import Lexical
from indexer.segment.manifest import SegmentEntry, check_sizes, verify_files
from indexer.segment.store import Store

__all__ = ["COLUMNS", "DENSE", "LEXICAL", "STORE", "Segment", "open_segment", "verify_files"]

STORE = "store.bin"
COLUMNS = "columns.bin"
LEXICAL = "lexical.bin"
DENSE = "dense.bin"


@dataclass(frozen=True)
class Segment:
    """The components of a segment; `lexical` and `dense` are None where the collection has none."""

    name: str
    path: Path
    rows: int
    store: Store
    columns: Columns
    lexical: Lexical | None
    dense: Dense | None


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
        dense=Dense(path / DENSE) if DENSE in entry.files else None,
    )
    _check_rows(segment, entry)
    return segment


def _check_rows(segment: Segment, entry: SegmentEntry) -> None:
    components = {
        STORE: segment.store,
        COLUMNS: segment.columns,
        LEXICAL: segment.lexical,
        DENSE: segment.dense,
    }
    for name, component in components.items():
        if component is not None and component.rows != entry.rows:
            raise CorruptFile(
                f"{segment.path / name}: {component.rows} rows where the manifest says {entry.rows}"
            )
