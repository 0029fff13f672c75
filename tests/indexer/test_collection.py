import os
import time

import pytest

from indexer.collection import (
    ABANDONED_SECONDS,
    CollectionExists,
    CollectionMissing,
    CollectionSchema,
    collection_path,
    create_collection,
    drop_collection,
    list_collections,
    sweep_collections,
)
from indexer.segment.manifest import read_current


def test_a_new_collection_is_empty_and_readable(tmp_path):
    path = create_collection(tmp_path, "news", CollectionSchema(language="de"))
    manifest = read_current(path)
    assert (manifest.generation, manifest.position, manifest.segments) == (0, 0, ())
    assert manifest.schema_.language == "de"
    assert list_collections(tmp_path) == ["news"]


def test_a_name_is_taken_once(tmp_path):
    create_collection(tmp_path, "news", CollectionSchema(k1=2.0))
    with pytest.raises(CollectionExists, match="'news'"):
        create_collection(tmp_path, "news", CollectionSchema())
    assert read_current(collection_path(tmp_path, "news")).schema_.k1 == 2.0
    assert [path.name for path in (tmp_path / "collections").iterdir()] == ["news"]


def test_a_dropped_collection_is_gone_and_its_name_free(tmp_path):
    create_collection(tmp_path, "news", CollectionSchema())
    drop_collection(tmp_path, "news")
    assert list_collections(tmp_path) == []
    assert list((tmp_path / "collections").iterdir()) == []
    with pytest.raises(CollectionMissing, match="no collection 'news'"):
        drop_collection(tmp_path, "news")
    create_collection(tmp_path, "news", CollectionSchema())


@pytest.mark.parametrize("name", ["", "../x", "A", "a/b", "-a", ".a", "a" * 65, "ä", "a\n"])
def test_names_that_could_be_paths_are_refused(tmp_path, name):
    with pytest.raises(ValueError, match="cannot name a collection"):
        create_collection(tmp_path, name, CollectionSchema())


def test_an_empty_root_has_no_collections(tmp_path):
    assert list_collections(tmp_path / "nowhere") == []


def test_what_a_crash_left_is_swept(tmp_path):
    create_collection(tmp_path, "news", CollectionSchema())
    for name, age in ((".new-other-1234", 2 * ABANDONED_SECONDS), (".new-now-1234", 0)):
        (tmp_path / "collections" / name).mkdir()
        os.utime(tmp_path / "collections" / name, (time.time() - age,) * 2)
    (tmp_path / "collections" / ".dropped-old-1234" / "segments").mkdir(parents=True)
    assert list_collections(tmp_path) == ["news"]
    sweep_collections(tmp_path)
    assert {path.name for path in (tmp_path / "collections").iterdir()} == {"news", ".new-now-1234"}
