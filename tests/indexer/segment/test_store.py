import json

import numpy as np
import pytest

from indexer.segment.store import Store, merge_store, write_store


def store(path, documents, first_seq=0):
    """Documents as (id, number of passages); passage i of a document spans [i, i + 1)."""
    rows = [number for number, (_, passages) in enumerate(documents) for _ in range(passages)]
    spans = [(i, i + 1) for _, passages in documents for i in range(passages)]
    jsons = [json.dumps({"id": name, "text": "x" * passages}).encode() for name, passages in documents]
    write_store(
        path,
        np.arange(first_seq, first_seq + len(rows), dtype=np.int64),
        np.array(rows, np.uint32),
        np.array(spans, np.uint32).reshape(-1, 2),
        jsons,
        [name for name, _ in documents],
    )
    return Store(path)


def test_documents_and_their_rows(tmp_path):
    some = store(tmp_path / "s", [("a", 2), ("é/../b", 1)], first_seq=10)
    assert (some.rows, some.documents) == (3, 2)
    assert some.seqs.tolist() == [10, 11, 12]
    assert some.document_of_row.tolist() == [0, 0, 1]
    assert some.first_row[:-1].tolist() == [0, 2]
    assert list(some.rows_of(0)) == [0, 1]
    assert list(some.rows_of(1)) == [2]
    assert some.spans.tolist() == [[0, 1], [1, 2], [0, 1]]
    assert some.document(1) == {"id": "é/../b", "text": "x"}
    assert some.json(0) == b'{"id": "a", "text": "xx"}'
    assert some.ids() == [some.id(0), some.id(1)] == ["a", "é/../b"]


def test_ids_are_looked_up(tmp_path):
    assert store(tmp_path / "s", [("a", 1), ("b", 1)]).find(["b", "nobody", "a"]).tolist() == [1, -1, 0]


def test_an_id_twice_is_refused(tmp_path):
    with pytest.raises(ValueError, match="'a' is there twice"):
        store(tmp_path / "s", [("a", 1), ("a", 1)])


def test_merging_leaves_out_documents_without_rows_and_keeps_numbers(tmp_path):
    first = store(tmp_path / "a", [("a", 2), ("b", 1), ("c", 1)])
    second = store(tmp_path / "b", [("d", 1), ("e", 2)], first_seq=9)
    kept = [(first, np.array([True, True, False, True])), (second, np.array([False, True, True]))]
    merge_store(tmp_path / "m", kept)
    merged = Store(tmp_path / "m")
    assert merged.ids() == ["a", "c", "e"]
    assert merged.seqs.tolist() == [0, 1, 3, 10, 11]
    assert merged.document_of_row.tolist() == [0, 0, 1, 2, 2]
    assert merged.document(2) == second.document(1)
    assert merged.find(["b", "e"]).tolist() == [-1, 2]
