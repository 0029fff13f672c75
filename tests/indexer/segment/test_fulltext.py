import os

import numpy as np
import pytest

from indexer.segment.analyzer import Analyzer
from indexer.segment.fulltext import (
    Fulltext,
    FulltextWriter,
    link_snapshot,
    measure_snapshot,
    relink_working,
)
from indexer.segment.manifest import verify_files
from indexer.segment.syntax import QuerySyntaxError

ENGLISH = Analyzer("en")
PASSAGES = [
    ("Oceans", "The moon raises tides in the ocean"),
    ("Animals", "Running dogs run after the cats"),
    ("Oceans", "spring tide and neap tide"),
    ("Moon landing", "A café on the moon: 東京 runner"),
]


def write(working, passages, first=0, delete=()):
    writer = FulltextWriter(working, ENGLISH)
    writer.delete(delete)
    for seq, (title, text) in enumerate(passages, first):
        writer.add(seq, f"doc/{seq}", title, text)
    writer.commit()
    return writer


def seqs(index, question, k=10, allowed=None):
    return index.search(question, k, allowed)[0].tolist()


@pytest.fixture(scope="module")
def index(tmp_path_factory):
    path = tmp_path_factory.mktemp("f")
    write(path / "working", PASSAGES).close()
    link_snapshot(path / "working", path / "snapshot")
    return Fulltext(path / "snapshot", ENGLISH)


@pytest.mark.parametrize(
    ("question", "found"),
    [
        ("tides", {0, 2}),
        ("tide AND moon", {0}),
        ("+tide -moon", {2}),
        ("tide NOT moon", {2}),
        ("NOT tide", {1, 3}),
        ("(dog OR cat) AND run", {1}),
        ('"spring tide"', {2}),
        ('"tide spring"', set()),
        ('"raises the tides"', set()),
        ('"moon raises tides in the ocean"', {0}),
        ('"spring neap"~3', {2}),
        ('"neap ti"*', {2}),
        ("title:moon", {3}),
        ("text:moon", {0, 3}),
        ("moon", {0, 3}),
        ('id:"doc/1"', {1}),
        ("runn*", {3}),
        ("running*", {1}),
        ("cafè~1", {3}),
        ("CAFÉ", {3}),
        ("東京", {3}),
        ("title:IN [animals moon]", {1, 3}),
        ("*", {0, 1, 2, 3}),
        ("the", set()),
        ("", set()),
        ("the AND tide", {0, 2}),
        ("moon^3 dogs", {0, 1, 3}),
    ],
)
def test_what_full_syntax_finds(index, question, found):
    assert set(seqs(index, question)) == found


def test_better_matches_come_first_and_equal_ones_by_number(index):
    assert seqs(index, "tide")[0] == 2
    assert seqs(index, "*") == [0, 1, 2, 3]
    assert seqs(index, "*", k=2) == [0, 1]
    assert seqs(index, "dogs moon^9")[-1] == 1


def test_the_search_goes_on_until_enough_are_allowed(tmp_path):
    write(tmp_path / "w", [("", "tide")] * 500).close()
    link_snapshot(tmp_path / "w", tmp_path / "s")
    index = Fulltext(tmp_path / "s", ENGLISH)
    assert seqs(index, "tide", 3, lambda s: s % 100 == 99) == [99, 199, 299]
    assert seqs(index, "tide", 9, lambda s: s % 100 == 99) == [99, 199, 299, 399, 499]
    assert seqs(index, "tide", 3, lambda s: np.zeros(len(s), np.bool_)) == []


def test_a_title_is_weighed_by_its_boost(tmp_path):
    write(tmp_path / "w", [("tide", "x"), ("x", "tide")]).close()
    link_snapshot(tmp_path / "w", tmp_path / "s")
    assert seqs(Fulltext(tmp_path / "s", ENGLISH, title_boost=3.0), "tide") == [0, 1]
    assert seqs(Fulltext(tmp_path / "s", ENGLISH, title_boost=0.1), "tide") == [1, 0]


@pytest.mark.parametrize(
    ("question", "sentence"),
    [
        ("year:2020", "no field 'year'.*metadata belong in `filter`"),
        ("title:[a TO b]", "ranges belong in `filter`"),
        ("title:/a.*/", "regular expressions are not supported"),
        ("title:*", "exists is not supported"),
        ('"tide', "missing delimiter .* at character 5"),
        ("(tide", r"expected '\)'"),
        ("(" * 65, "at most 64 parentheses"),
        ("é" * 4097, "at most 8,192 bytes"),
        (" ".join(f"w{i}" for i in range(1100)), "at most 1,024 clauses"),
        (
            " ".join(f"w{i}*" for i in range(40)) + " " + " ".join(f"w{i}~" for i in range(40)),
            "at most 64 prefixes",
        ),
    ],
)
def test_what_cannot_be_read_is_said_in_a_sentence(index, question, sentence):
    with pytest.raises(QuerySyntaxError, match=sentence):
        index.search(question, 10)


def test_highlights_mark_what_was_asked_for_and_not_what_was_excluded(index):
    text = PASSAGES[3][1]
    assert index.highlights("moon -café", text) == ["A café on the <mark>moon</mark>: 東京 runner"]
    assert index.highlights("run*", text) == ["A café on the moon: 東京 <mark>runner</mark>"]
    assert index.highlights('"neap tide" OR caf*', text) == ["A <mark>café</mark> on the moon: 東京 runner"]


def test_a_snapshot_stays_as_it_was(tmp_path):
    writer = write(tmp_path / "w", PASSAGES)
    link_snapshot(tmp_path / "w", tmp_path / "one")
    first = Fulltext(tmp_path / "one", ENGLISH)
    writer.delete([0])
    writer.add(9, "new", "", "tide")
    writer.commit()
    link_snapshot(tmp_path / "w", tmp_path / "two")
    for _ in range(8):
        writer.add(10, "more", "", "other words")
        writer.commit()
    writer.close()
    assert set(seqs(first, "tide")) == set(seqs(Fulltext(tmp_path / "one", ENGLISH), "tide")) == {0, 2}
    assert set(seqs(Fulltext(tmp_path / "two", ENGLISH), "tide")) == {2, 9}


def test_the_working_directory_goes_back_to_what_was_published(tmp_path):
    writer = write(tmp_path / "w", PASSAGES)
    link_snapshot(tmp_path / "w", tmp_path / "one")
    writer.add(50, "ahead", "", "tide")
    writer.commit()
    writer.close()
    relink_working(tmp_path / "one", tmp_path / "w")
    write(tmp_path / "w", [("", "tide")], first=60).close()
    link_snapshot(tmp_path / "w", tmp_path / "two")
    assert set(seqs(Fulltext(tmp_path / "two", ENGLISH), "tide")) == {0, 2, 60}
    assert set(seqs(Fulltext(tmp_path / "one", ENGLISH), "tide")) == {0, 2}


def test_without_a_snapshot_the_working_directory_is_empty(tmp_path):
    write(tmp_path / "w", PASSAGES).close()
    relink_working(None, tmp_path / "w")
    write(tmp_path / "w", []).close()
    link_snapshot(tmp_path / "w", tmp_path / "s")
    assert seqs(Fulltext(tmp_path / "s", ENGLISH), "*") == []


def test_only_files_that_the_commit_names_are_linked(tmp_path):
    write(tmp_path / "w", PASSAGES).close()
    (tmp_path / "w" / "stray.idx").write_bytes(b"")
    link_snapshot(tmp_path / "w", tmp_path / "s")
    names = {path.name for path in (tmp_path / "s").iterdir()}
    assert "stray.idx" not in names
    assert {"meta.json", ".managed.json"} < names
    assert all((tmp_path / "s" / n).stat().st_nlink == (1 if n.endswith(".json") else 2) for n in names)


def test_a_merge_that_removes_files_while_they_are_linked_is_survived(tmp_path, monkeypatch):
    write(tmp_path / "w", PASSAGES).close()
    link, failed = os.link, []

    def link_once_missing(source, target):
        if not failed:
            failed.append(source)
            raise FileNotFoundError(source)
        link(source, target)

    monkeypatch.setattr(os, "link", link_once_missing)
    link_snapshot(tmp_path / "w", tmp_path / "s")
    assert set(seqs(Fulltext(tmp_path / "s", ENGLISH), "tide")) == {0, 2}


def test_what_an_interrupted_snapshot_left_is_replaced(tmp_path):
    write(tmp_path / "w", PASSAGES).close()
    (tmp_path / "s").mkdir()
    (tmp_path / "s" / "meta.json").write_text("half")
    link_snapshot(tmp_path / "w", tmp_path / "s")
    assert set(seqs(Fulltext(tmp_path / "s", ENGLISH), "tide")) == {0, 2}


def test_checksums_of_linked_files_are_taken_over(tmp_path):
    writer = write(tmp_path / "w", PASSAGES)
    link_snapshot(tmp_path / "w", tmp_path / "one")
    known = measure_snapshot(tmp_path / "one", {})
    writer.add(9, "new", "", "tide")
    writer.commit()
    writer.close()
    link_snapshot(tmp_path / "w", tmp_path / "two")
    Fulltext(tmp_path / "two", ENGLISH)
    files = measure_snapshot(tmp_path / "two", known)
    verify_files(tmp_path / "two", files)
    assert {name for name in files if name in known} > {"meta.json", ".managed.json"}
    assert files["meta.json"] != known["meta.json"]
    assert not any(name.endswith(".lock") for name in files)
