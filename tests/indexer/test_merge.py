"""Merging keeps segments few and changes nothing that a search could see."""

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from indexer.batch import Batch
from indexer.build import build_segment
from indexer.document import Document
from indexer.encoders import Encoders
from indexer.filters import parse
from indexer.merge import MOST_SEGMENTS, DamagedSegment, Merge, Window, plan
from indexer.part import Part, total
from indexer.segment.analyzer import Analyzer
from indexer.segment.manifest import CollectionSchema, SegmentEntry
from indexer.segment.segment import Segment, open_segment, verify_files
from tests.nets import word_overlap

EVERYTHING = ("bm25", "dense", "sparse", "late", "keys")
SCHEMA = CollectionSchema(language="none", passage_tokens=16, overlap_sentences=0, components=EVERYTHING)


@pytest.fixture(autouse=True)
def collection(tmp_path: Path) -> None:
    (tmp_path / "segments").mkdir()


def entry(alive: int, dead: int = 0) -> SegmentEntry:
    return SegmentEntry(
        name="s", rows=alive + dead, documents=1, first_seq=0, last_seq=0, files={}, dead_rows=dead
    )


def planned(*sizes: int) -> Window | None:
    return plan([entry(size) for size in sizes])


def document(name: str, sentences: int = 1) -> Document:
    text = f"{name} one two three four five six seven eight nine. " * sentences
    return Document(id=name, title=f"title {name}", text=text, metadata={"name": name})


def built(
    directory: Path,
    name: str,
    documents: Sequence[Document],
    first_seq: int,
    schema: CollectionSchema = SCHEMA,
) -> Part:
    made = build_segment(
        directory, name, documents, first_seq, schema, Encoders(word_overlap).of(schema, {}), Analyzer("none")
    )
    return Part.open(directory, made)


def test_few_segments_of_different_sizes_are_left_alone():
    assert planned() is None
    assert planned(5000) is None
    assert planned(500_000, 100_000, 20_000, 4000, 4000) is None


def test_six_alike_become_one():
    assert planned(90_000, *[4000] * 6) == (1, 7)
    assert planned(*[1] * 6) == (0, 6)


def test_too_many_segments_cost_the_cheapest_merge():
    sizes = [2**power * 1000 for power in range(14, 2, -1)]
    assert len(sizes) > MOST_SEGMENTS
    begin, end = planned(*sizes)
    assert end == len(sizes)
    assert end - begin >= 2


def test_a_segment_mostly_dead_is_rewritten():
    assert plan([entry(4000), entry(100, dead=101)]) == (1, 2)
    assert plan([entry(4000), entry(100, dead=100)]) is None


def test_damaged_segments_are_planned_around():
    entries = [entry(4000).model_copy(update={"name": str(number)}) for number in range(14)]
    assert plan(entries, {"3"}) == (4, 14)
    assert plan(entries, {"3", "7", "11"}) == (0, 3)
    assert plan([entry(100, dead=101)], {"s"}) is None


@given(st.lists(st.integers(1, 10**6), max_size=60))
def test_merging_as_planned_ends_with_few_segments(sizes: list[int]):
    merges = 0
    while (window := planned(*sizes)) is not None:
        sizes[slice(*window)] = [sum(sizes[slice(*window)])]
        merges += 1
        assert merges < 60
    assert len(sizes) <= MOST_SEGMENTS


def test_a_row_is_copied_about_logarithmically_often():
    sizes: list[int] = []
    copied = 0
    for _ in range(1000):
        sizes.append(1000)
        while (window := planned(*sizes)) is not None:
            merged = sum(sizes[slice(*window)])
            copied += merged
            sizes[slice(*window)] = [merged]
    assert copied < 10 * 1000 * 1000


def vectors(segment: Segment) -> list[dict[int, float]]:
    """Weights by term of every row's sparse vector."""
    offsets, terms, weights = segment.sparse.vectors(np.arange(segment.rows))
    return [dict(zip(terms[a:b].tolist(), weights[a:b].tolist(), strict=True)) for a, b in pairwise(offsets)]


def test_merging_equals_building_what_is_alive_at_once(tmp_path: Path):
    a, b, c, d = document("a", 3), document("b"), document("c", 2), document("d")
    first = built(tmp_path, "1", [a, b], 0).after(Batch(1, ids=("b", "unknown")))
    second = built(tmp_path, "2", [c, d], 10)
    entry = Merge("m", [first, second]).run(tmp_path)
    merged = open_segment(tmp_path / "segments" / "m", entry)
    whole = built(tmp_path, "w", [a, c, d], 0)
    assert (entry.rows, entry.documents) == (whole.entry.rows, 3)
    assert merged.store.seqs.tolist() == [0, 1, 2, 10, 11, 12]
    assert (entry.first_seq, entry.last_seq) == (0, 12)
    assert total([first, second]) == whole.statistics == Part.open(tmp_path, entry).statistics
    verify_files(merged.path, entry.files)
    for name in ("lexical.bin", "documents.bin", "dense.bin", "late.bin", "keys.bin", "columns.bin"):
        assert (merged.path / name).read_bytes() == (whole.segment.path / name).read_bytes()
    assert vectors(merged) == vectors(whole.segment)
    assert [merged.store.json(n) for n in range(3)] == [each.to_json() for each in (a, c, d)]
    assert merged.store.spans.tolist() == whole.segment.store.spans.tolist()


def test_a_merge_keeps_what_is_known_of_quality_and_pieces(tmp_path: Path):
    judged = {"sparse_quality": "itn", "least_quality": 0.5, "sparse_query": "idf"}
    schema = CollectionSchema(language="none", **judged)
    poor = [Document(id=name, text="so so so so so so") for name in "ab"]
    first = built(tmp_path, "1", [poor[0], document("c")], 0, schema).after(Batch(1, ids=("a",)))
    second = built(tmp_path, "2", [document("d"), poor[1]], 2, schema)
    whole = built(tmp_path, "w", [document("c"), document("d"), poor[1]], 0, schema)
    assert [part.entry.pruned_rows for part in (first, second, whole)] == [1, 1, 1]
    entry = Merge("m", [first, second]).run(tmp_path)
    assert entry.pruned_rows == 1
    merged = open_segment(tmp_path / "segments" / "m", entry)
    assert vectors(merged) == vectors(whole.segment)
    assert merged.quality.values.tolist() == whole.segment.quality.values.tolist()
    assert merged.quality.pruned.tolist() == [False, False, True]
    assert np.array_equal(merged.sparse.piece_frequencies(), whole.segment.sparse.piece_frequencies())


def test_merging_whole_documents_equals_building_them_at_once(tmp_path: Path):
    schema = SCHEMA.model_copy(update={"lexical_unit": "document", "components": ("bm25",)})
    a, b, c, d = document("a", 3), document("b"), document("c", 2), document("d", 4)
    first = built(tmp_path, "1", [a, b], 0, schema).after(Batch(1, ids=("a",)))
    second = built(tmp_path, "2", [c, d], 10, schema)
    gone = built(tmp_path, "3", [a], 20, schema).after(Batch(2, ids=("a",)))
    whole = built(tmp_path, "w", [b, c, d], 0, schema)
    entry = Merge("m", [first, second, gone]).run(tmp_path)
    merged = Part.open(tmp_path, entry)
    for name in ("lexical.bin", "documents.bin"):
        assert (merged.segment.path / name).read_bytes() == (whole.segment.path / name).read_bytes()
    assert total([first, second, gone]) == whole.statistics == merged.statistics
    assert (whole.statistics.document_body_terms, whole.statistics.document_title_terms) == (10 * 7, 2 * 3)
    assert whole.statistics.title_terms == 2 * whole.statistics.passages, "each passage has the title"


def test_what_died_during_a_merge_is_dead_after_it(tmp_path: Path):
    first = built(tmp_path, "1", [document("a"), document("b")], 0).after(Batch(1, ids=("a",)))
    second = built(tmp_path, "2", [document("c"), document("d")], 2)
    merge = Merge("m", [first, second])
    assert merge.run(tmp_path).rows == 3
    now = {"1": first, "2": second.after(Batch(2, ids=("d",)))}
    assert merge.dead_since(now).tolist() == [False, False, True]
    assert merge.dead_since({"2": second}).tolist() == [True, False, False]


def test_a_flipped_byte_is_not_merged_into_a_segment_that_would_vouch_for_it(tmp_path: Path):
    parts = [built(tmp_path, "1", [document("a")], 0), built(tmp_path, "2", [document("b")], 1)]
    path = tmp_path / "segments" / "2" / "dense.bin"
    content = bytearray(path.read_bytes())
    content[-200] ^= 1
    path.write_bytes(content)
    with pytest.raises(DamagedSegment, match="segment 2 is damaged and is left as it is: ") as caught:
        Merge("m", parts).run(tmp_path)
    assert (caught.value.segment, "dense.bin" in str(caught.value)) == ("2", True)
    assert not (tmp_path / "segments" / "m").exists()


def test_nothing_alive_merges_to_nothing(tmp_path: Path):
    part = built(tmp_path, "1", [document("a")], 0).after(Batch(1, ids=("a",)))
    assert Merge("m", [part]).run(tmp_path) is None
    assert not (tmp_path / "segments" / "m").exists()


def test_deleting_by_filter_takes_whole_documents(tmp_path: Path):
    part = built(tmp_path, "1", [document("a", 2), document("b")], 0)
    after = part.after(Batch(1, filters=(parse({"name": "a"}),)))
    assert after.dead.tolist() == [True, True, False]
    assert (after.statistics.documents, after.statistics.passages) == (1, 1)
    assert after.statistics.body_terms == 10
    assert after.after(Batch(2, ids=("a",))) is after
    assert np.array_equal(part.dead, [False, False, False])
