"""The pieces of a generation that searches can do without, and the files of each.

A piece is a segment with its tombstones, or tantivy's index of the whole collection. Whoever reads every
byte goes through these; a piece with a damaged file is left out, and the others go on.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from indexer.segment.manifest import FileEntry, Manifest, SegmentEntry

FULLTEXT = "the index of full query syntax"


class Piece(NamedTuple):
    """What it is called in reports, and its files with what the manifest says of them."""

    name: str
    files: dict[Path, FileEntry]


def segment_piece(entry: SegmentEntry) -> str:
    """What the piece of a segment is called."""
    return f"segment {entry.name}"


def pieces(directory: Path, manifest: Manifest) -> Iterator[Piece]:
    """Every piece of the generation of a collection in `directory`."""
    for entry in manifest.segments:
        yield Piece(segment_piece(entry), _files(directory, entry))
    if manifest.lexical is not None:
        folder = directory / manifest.lexical.directory
        yield Piece(FULLTEXT, {folder / name: file for name, file in manifest.lexical.files.items()})


def _files(directory: Path, entry: SegmentEntry) -> dict[Path, FileEntry]:
    files = {directory / "segments" / entry.name / name: file for name, file in entry.files.items()}
    if entry.tombstones is not None and entry.tombstones_entry is not None:
        files[directory / "tombstones" / entry.tombstones] = entry.tombstones_entry
    return files
