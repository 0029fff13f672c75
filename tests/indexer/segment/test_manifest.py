import os

import pytest
from pydantic import ValidationError

from indexer.segment.arrays import CorruptFile
from indexer.segment.manifest import (
    CURRENT,
    OWN_SCORER,
    CollectionSchema,
    FileEntry,
    Manifest,
    check_sizes,
    manifest_name,
    measure,
    publish,
    read_current,
    verify_files,
)
from models.load import DEFAULT_DENSE, DEFAULT_IN_CONTEXT, DEFAULT_SPARSE
from models.quality import ITN


def manifest(generation=0, **changes):
    return Manifest(generation=generation, schema_=CollectionSchema(), **changes)


def test_what_is_published_is_current(tmp_path):
    publish(tmp_path, manifest(position=7))
    assert read_current(tmp_path).position == 7


def test_a_successor_counts_on_and_keeps_the_rest(tmp_path):
    first = manifest(position=7, next_seq=3)
    second = first.successor(next_seq=5)
    assert (second.generation, second.position, second.next_seq) == (1, 7, 5)


def test_publishing_leaves_older_manifests_as_they_were(tmp_path):
    publish(tmp_path, manifest(0))
    before = (tmp_path / manifest_name(0)).read_bytes()
    publish(tmp_path, manifest(1))
    assert read_current(tmp_path).generation == 1
    assert (tmp_path / manifest_name(0)).read_bytes() == before


def test_nothing_published_is_no_file(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_current(tmp_path)


@pytest.mark.parametrize(("call", "step"), [("fsync", n) for n in range(1, 5)] + [("replace", 1)])
def test_a_crash_at_any_step_leaves_the_old_generation_or_the_new(tmp_path, monkeypatch, call, step):
    publish(tmp_path, manifest(0))
    original, seen = getattr(os, call), []

    def dies(*arguments):
        seen.append(arguments)
        if len(seen) == step:
            raise KeyboardInterrupt
        return original(*arguments)

    monkeypatch.setattr(os, call, dies)
    with pytest.raises(KeyboardInterrupt):
        publish(tmp_path, manifest(1))
    assert read_current(tmp_path).generation == (1 if step == 4 else 0)
    monkeypatch.setattr(os, call, original)
    publish(tmp_path, manifest(1))
    assert read_current(tmp_path).generation == 1


def test_every_flipped_byte_of_a_manifest_is_found(tmp_path):
    publish(tmp_path, manifest())
    path = tmp_path / manifest_name(0)
    whole = path.read_bytes()
    for place in range(len(whole)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with pytest.raises(CorruptFile, match="checksum"):
            read_current(tmp_path)


def test_a_pointer_to_elsewhere_is_refused(tmp_path):
    (tmp_path / CURRENT).write_text("../other/manifest-000001.json\n")
    with pytest.raises(CorruptFile, match="not the name of a manifest"):
        read_current(tmp_path)


def test_a_newer_format_is_said_to_be_unreadable(tmp_path):
    newer = manifest().model_copy(update={"format": 2})
    publish(tmp_path, newer)
    with pytest.raises(CorruptFile, match="cannot read the manifest"):
        read_current(tmp_path)


def test_files_are_checked_by_size_and_in_full(tmp_path):
    (tmp_path / "a").write_bytes(b"abc")
    files = measure(tmp_path)
    verify_files(tmp_path, files)
    (tmp_path / "a").write_bytes(b"abd")
    check_sizes(tmp_path, files)
    with pytest.raises(CorruptFile, match="do not match the manifest's checksum"):
        verify_files(tmp_path, files)
    (tmp_path / "a").write_bytes(b"ab")
    with pytest.raises(CorruptFile, match="2 bytes where the manifest says 3"):
        check_sizes(tmp_path, files)
    (tmp_path / "a").unlink()
    with pytest.raises(CorruptFile, match="missing"):
        check_sizes(tmp_path, files)


def test_a_checksum_is_sha256_of_the_bytes(tmp_path):
    (tmp_path / "a").write_bytes(b"")
    empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    assert FileEntry.of(tmp_path / "a") == FileEntry(size=0, sha256=empty)


@pytest.mark.parametrize(
    "wrong",
    [
        {"language": "xx"},
        {"components": []},
        {"components": ["magic"]},
        {"columns": {"year": "number"}},
        {"k1": float("nan")},
        {"b": 2},
        {"surprise": 1},
        {"sparse_query": "words"},
        {"sparse_idf": "bert"},
        {"sparse_query": "encoder", "sparse_idf": "bert"},
        {"sparse_terms": 0},
        {"sparse_threshold": -0.1},
        {"sparse_quality": "length"},
        {"least_quality": 0.5},
    ],
)
def test_a_schema_refuses_what_it_does_not_know(wrong):
    with pytest.raises(ValidationError):
        CollectionSchema.model_validate(wrong)


def test_what_goes_together_in_a_schema_is_given_together():
    given = {"sparse_query": "idf", "sparse_idf": "bert", "sparse_quality": "length", "least_quality": -1.0}
    assert CollectionSchema.model_validate(given).model_dump(include=set(given)) == given


def test_default_encoders_are_those_of_the_models():
    assert CollectionSchema().encoder == DEFAULT_DENSE
    assert CollectionSchema().sparse_encoder == DEFAULT_SPARSE
    assert CollectionSchema().in_context_model == DEFAULT_IN_CONTEXT
    assert OWN_SCORER == ITN


def test_what_reorders_needs_something_that_finds():
    for alone in (["keys"], ["late"], ["keys", "late"]):
        with pytest.raises(ValidationError, match="what others find: add bm25, dense or sparse"):
            CollectionSchema.model_validate({"components": alone})
    assert CollectionSchema(components=("keys", "bm25")).components == ("bm25", "keys")


def test_nets_are_those_of_the_components():
    schema = CollectionSchema(components=("bm25", "dense", "keys"), encoder="a", in_context_model="b")
    assert schema.encoders() == {"dense": "a", "in_context": "b"}
    assert schema.encoders(("keys", "sparse")) == {"in_context": "b"}
    assert schema.encoders(()) == {}


def test_components_are_a_set_in_one_order():
    assert CollectionSchema(components=("dense", "bm25", "dense")).components == ("bm25", "dense")


def test_what_weighs_questions_by_default_depends_on_the_encoder():
    assert CollectionSchema().sparse_query == "both"
    assert CollectionSchema(sparse_encoder="pypi:other/net").sparse_query == "encoder"
    assert CollectionSchema(sparse_query="idf").sparse_query == "idf"
