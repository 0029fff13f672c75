import numpy as np
import pytest

from indexer.segment.arrays import CorruptFile
from indexer.segment.columns import write_columns
from indexer.segment.dense import write_dense
from indexer.segment.lexical import write_lexical
from indexer.segment.manifest import SegmentEntry, measure
from indexer.segment.quality import write_quality
from indexer.segment.segment import (
    COLUMNS,
    DENSE,
    DOCUMENTS,
    LEXICAL,
    QUALITY,
    SPARSE,
    STORE,
    open_segment,
    verify_files,
)
from indexer.segment.sparse import write_sparse
from indexer.segment.store import write_store
from models.csr import from_dense


def build(path, rows=3, dense_rows=None, sparse_rows=None, quality_rows=None):
    path.mkdir()
    numbers = np.arange(rows, dtype=np.uint32)
    write_store(
        path / STORE,
        numbers.astype(np.int64),
        numbers,
        np.zeros((rows, 2), np.uint32),
        [b"{}"] * rows,
        [str(number) for number in range(rows)],
    )
    write_columns(path / COLUMNS, [{"n": number} for number in range(rows)], numbers, {})
    write_lexical(path / LEXICAL, [["a"]] * rows, [[]] * rows)
    if dense_rows != 0:
        write_dense(path / DENSE, np.ones((dense_rows or rows, 2), np.float32))
    if sparse_rows != 0:
        write_sparse(path / SPARSE, from_dense(np.eye(sparse_rows or rows, 9, dtype=np.float32)), 8.0, 9)
        quality = np.arange(quality_rows or rows, dtype=np.float32)
        write_quality(path / QUALITY, quality, quality < 1)
    return SegmentEntry(
        name=path.name, rows=rows, documents=rows, first_seq=0, last_seq=rows - 1, files=measure(path)
    )


def test_components_are_opened_together(tmp_path):
    segment = open_segment(tmp_path / "s", build(tmp_path / "s"))
    assert (segment.name, segment.rows) == ("s", 3)
    assert segment.lexical is not None
    assert segment.dense is not None
    assert segment.sparse is not None
    assert segment.quality is not None
    assert segment.quality.pruned.tolist() == [True, False, False]
    assert segment.columns.any_of("_id", ("1",)).tolist() == [False, True, False]


def test_a_component_the_collection_lacks_is_none(tmp_path):
    segment = open_segment(tmp_path / "s", build(tmp_path / "s", dense_rows=0, sparse_rows=0))
    assert (segment.dense, segment.sparse, segment.quality) == (None, None, None)


def two_of_three(path, documents=2):
    """Three passages, of which the first two are one document's, and postings of so many documents."""
    path.mkdir()
    of_row, spans = np.array([0, 0, 1], np.uint32), np.zeros((3, 2), np.uint32)
    write_store(path / STORE, np.arange(3), of_row, spans, [b"{}"] * 2, ["a", "b"])
    write_columns(path / COLUMNS, [{}, {}], of_row, {})
    write_lexical(path / LEXICAL, [["a"]] * 3, [[]] * 3)
    write_lexical(path / DOCUMENTS, [["a"]] * documents, [[]] * documents)
    files = measure(path)
    return SegmentEntry(name=path.name, rows=3, documents=2, first_seq=0, last_seq=2, files=files)


def test_whole_documents_have_a_row_each(tmp_path):
    segment = open_segment(tmp_path / "s", two_of_three(tmp_path / "s"))
    assert segment.document_lexical is not None
    assert segment.document_lexical.rows == 2
    assert segment.by_document(np.array([True, True, False])).tolist() == [True, False]
    assert open_segment(tmp_path / "t", build(tmp_path / "t")).document_lexical is None


def test_postings_of_other_documents_are_refused(tmp_path):
    with pytest.raises(CorruptFile, match=r"documents\.bin: 3 rows where the manifest says 2"):
        open_segment(tmp_path / "s", two_of_three(tmp_path / "s", documents=3))


@pytest.mark.parametrize("component", ["dense", "sparse", "quality"])
def test_components_of_different_lengths_are_refused(tmp_path, component):
    with pytest.raises(CorruptFile, match=rf"{component}\.bin: 2 rows where the manifest says 3"):
        open_segment(tmp_path / "s", build(tmp_path / "s", **{f"{component}_rows": 2}))


@pytest.mark.parametrize("name", [STORE, COLUMNS, LEXICAL, DENSE, SPARSE, QUALITY])
def test_a_missing_or_shortened_file_is_found_at_opening(tmp_path, name):
    entry = build(tmp_path / "s")
    path = tmp_path / "s" / name
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(CorruptFile, match=f"{name}: .* bytes where the manifest says"):
        open_segment(tmp_path / "s", entry)
    path.unlink()
    with pytest.raises(CorruptFile, match=f"{name}: the file is missing"):
        open_segment(tmp_path / "s", entry)


@pytest.mark.parametrize("name", [STORE, COLUMNS, LEXICAL, DENSE, SPARSE, QUALITY])
def test_every_flipped_byte_is_found_by_checksum(tmp_path, name):
    entry = build(tmp_path / "s")
    path = tmp_path / "s" / name
    whole = path.read_bytes()
    for place in range(0, len(whole), 41):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 4]) + whole[place + 1 :])
        with pytest.raises(CorruptFile, match=name):
            verify_files(tmp_path / "s", entry.files)
    path.write_bytes(whole)
    verify_files(tmp_path / "s", entry.files)
