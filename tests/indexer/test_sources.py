"""Every kind of source on files of two lines, and the sentence a user gets for a bad one."""

import gzip
from pathlib import Path

import pytest

from indexer.sources import SourceError, count_documents, read_documents, read_qrels, read_queries

TIDES = b'{"_id": "d1", "title": "Tides", "text": "The moon pulls the sea."}\n'
RAIN = b'{"id": "d2", "text": "Clouds rain.", "metadata": {"year": 2020}}\n'


def ids(source: Path) -> list[str]:
    return [document.id for document in read_documents(source)]


@pytest.mark.parametrize("name", ["a.jsonl", "a.ndjson", "a.jsonl.gz", "a.ndjson.gz"])
def test_json_lines(tmp_path: Path, name: str):
    content = TIDES + b"\n" + RAIN
    (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    first, second = read_documents(tmp_path / name)
    assert (first.id, first.title, first.text) == ("d1", "Tides", "The moon pulls the sea.")
    assert second.metadata == {"year": 2020}
    assert count_documents(tmp_path / name) == 2


def test_beir_folder(tmp_path: Path):
    (tmp_path / "corpus.jsonl").write_bytes(TIDES + RAIN)
    (tmp_path / "queries.jsonl").write_text('{"_id": "q1", "text": "tides", "metadata": {}}\n')
    (tmp_path / "qrels.tsv").write_text("query-id\tcorpus-id\tscore\nq1\td1\t2\nq1\td2\t0\n")
    assert ids(tmp_path) == ["d1", "d2"]
    assert read_queries(tmp_path) == {"q1": "tides"}
    assert read_qrels(tmp_path) == {"q1": {"d1": 2, "d2": 0}}


def test_text_folder_in_a_fixed_order(tmp_path: Path):
    (tmp_path / "b.txt").write_text("No heading here.")
    (tmp_path / "guide").mkdir()
    (tmp_path / "guide" / "a.md").write_text("intro\n\n## Getting started ##\n\nText.")
    (tmp_path / "picture.png").write_bytes(b"\x89PNG")
    documents = list(read_documents(tmp_path))
    assert [(d.id, d.title) for d in documents] == [("b.txt", "b"), ("guide/a.md", "Getting started")]
    assert documents[1].metadata == {"path": "guide/a.md"}
    assert count_documents(tmp_path) == 2


def test_one_text_file(tmp_path: Path):
    (tmp_path / "notes.md").write_text("# Notes\nx")
    assert ids(tmp_path / "notes.md") == ["notes.md"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b'{"id": "d2"}', r"a\.jsonl:2: text: Field required"),
        (b'{"id": "", "text": ""}', r"a\.jsonl:2: id: .*must not be empty"),
        (b'{"id": "d2", "text": NaN}', r"a\.jsonl:2: not JSON"),
        (b'{"id": "d2", "text": "\xff"}', r"a\.jsonl:2: not JSON"),
        (b"[1]", r"a\.jsonl:2: expected a JSON object, found list"),
    ],
)
def test_a_bad_record_is_named_by_file_and_line(tmp_path: Path, line: bytes, message: str):
    (tmp_path / "a.jsonl").write_bytes(TIDES + line)
    documents = read_documents(tmp_path / "a.jsonl")
    assert next(documents).id == "d1"
    with pytest.raises(SourceError, match=message):
        next(documents)


def test_a_cut_gzip_file_is_named(tmp_path: Path):
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(TIDES * 50)[:-9])
    with pytest.raises(SourceError, match=r"a\.jsonl\.gz: not a whole gzip file"):
        ids(tmp_path / "a.jsonl.gz")


def test_nothing_to_read(tmp_path: Path):
    with pytest.raises(SourceError, match="does not exist"):
        ids(tmp_path / "missing")
    with pytest.raises(SourceError, match="holds nothing to index: expected a BEIR folder"):
        ids(tmp_path)
    with pytest.raises(SourceError, match="no judgments"):
        read_qrels(tmp_path)
    with pytest.raises(SourceError, match=r"no queries: expected queries\.jsonl"):
        read_queries(tmp_path)


def test_a_bad_judgment_is_named(tmp_path: Path):
    (tmp_path / "qrels.tsv").write_text("query-id\tcorpus-id\tscore\nq1\td1\tgood\n")
    with pytest.raises(SourceError, match=r"qrels\.tsv:2: expected query, document and a whole-number grade"):
        read_qrels(tmp_path)
