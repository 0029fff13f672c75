"""Backups of small collections: what is copied, what is shared, what goes with which, what is refused."""

import shutil
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from indexer.backup import (
    Backup,
    BackupExists,
    BackupMissing,
    Backups,
    BadName,
    DamagedBackup,
    back_up,
    forget,
)
from indexer.batch import Batch
from indexer.collection import CollectionMissing, CollectionSchema, collection_path, create_collection
from indexer.document import Document
from indexer.encoders import CollectionEncoders
from indexer.repository import Directory
from indexer.segment.arrays import CorruptFile
from indexer.segment.manifest import read_current, seal
from indexer.workplace import Busy, workplace
from indexer.writer import Writer
from tests.indexer.dying import killed_before
from tests.indexer.reading import quick_directory

SCHEMA = CollectionSchema(language="none", components=("bm25",))


def put(root: Path, *ids: str, gone: tuple[str, ...] = ()) -> None:
    """Apply one batch to the collection `c`: one segment, if there are documents."""
    writer = Writer(collection_path(root, "c"))
    documents = tuple(Document(id=each, text=f"moon {each}") for each in ids)
    batch = Batch(writer.manifest.position + len(ids) + len(gone), documents=documents, ids=gone)
    writer.apply(batch, CollectionEncoders())
    writer.close()


@pytest.fixture
def root() -> Iterator[Path]:
    with quick_directory() as path:
        create_collection(path, "c", SCHEMA)
        put(path, "a", "b")
        put(path, "d", gone=("a",))
        yield path


@pytest.fixture
def kept(root: Path) -> Directory:
    return Directory("r", root / "kept")


def files(root: Path) -> set[str]:
    """What a repository holds of the collection, by checksum."""
    return {path.name for path in (root / "kept" / "c" / "files").iterdir()}


def folders(root: Path) -> list[str]:
    """What lies beside the collections too."""
    return sorted(path.name for path in (root / "collections").iterdir())


def test_a_backup_is_the_manifest_and_its_files_by_checksum(root: Path, kept: Directory):
    manifest = read_current(collection_path(root, "c"))
    taken = back_up(kept, root, "c", "first")
    assert taken.backup.manifest == manifest
    assert files(root) == {entry.sha256 for entry in manifest.files().values()}
    assert taken.copied == taken.backup.size() == sum(each.size for each in taken.backup.files().values())
    (found,), damaged = Backups(kept, "c").listing()
    assert (found, damaged) == (taken.backup, {})
    assert manifest.segments[0].tombstones is not None
    copied = next((root / "kept" / "c" / "files").iterdir()).stat()
    assert copied.st_nlink == 1  # a copy, and no link


def test_a_second_backup_copies_only_what_is_new(root: Path, kept: Directory):
    first = back_up(kept, root, "c", "first")
    assert back_up(kept, root, "c", "again").copied == 0
    put(root, "e")
    second = back_up(kept, root, "c", "second")
    fresh = second.backup.files().keys() - first.backup.files().keys()
    assert second.copied == sum(second.backup.files()[name].size for name in fresh)
    assert 0 < second.copied < second.backup.size()


def test_what_a_broken_copy_left_is_copied_again(root: Path, kept: Directory):
    taken = back_up(kept, root, "c", "first")
    name, entry = next(iter(taken.backup.files().items()))
    (root / "kept" / "c" / "files" / name).write_bytes(b"half")
    assert back_up(kept, root, "c", "second").copied == entry.size


def test_names_are_made_or_given_and_taken_once(root: Path, kept: Directory):
    made = back_up(kept, root, "c").backup.name
    assert Backups(kept, "c").find(made).name == made
    with pytest.raises(BackupExists, match=made):
        back_up(kept, root, "c", made)
    for name in ("../x", "A", "", "a/b"):
        with pytest.raises(BadName):
            Backups(kept, "c").find(name)
        with pytest.raises(BadName):
            Backups(kept, name)


def test_what_is_not_there_cannot_be_backed_up(root: Path, kept: Directory):
    with pytest.raises(CollectionMissing, match="no collection 'x'"):
        back_up(kept, root, "x")
    (collection_path(root, "c") / "segments" / "000001" / "store.bin").unlink()
    with pytest.raises(CorruptFile, match=r"store\.bin: the file is missing"):
        back_up(kept, root, "c")


def test_a_damaged_file_is_not_backed_up(root: Path, kept: Directory):
    path = collection_path(root, "c") / "segments" / "000001" / "store.bin"
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(CorruptFile, match=r"c/segments/000001/store\.bin: the bytes do not match"):
        back_up(kept, root, "c")
    assert Backups(kept, "c").names() == []


def test_files_outlast_the_sweep_that_comes_while_they_are_copied(root: Path, kept: Directory):
    """A writer of another process may be started, and sweeps, as soon as the backup has its manifest."""
    before = read_current(collection_path(root, "c"))

    def merge_and_sweep(done: int, total: int) -> None:
        if done == 1:
            writer = Writer(collection_path(root, "c"))
            writer.apply(Batch(9, ids=("b", "d")), CollectionEncoders())
            writer.close()
            Writer(collection_path(root, "c")).close()
            assert not list((collection_path(root, "c") / "segments").iterdir())

    taken = back_up(kept, root, "c", "first", None, merge_and_sweep)
    assert taken.backup.manifest == before
    assert files(root) == {entry.sha256 for entry in before.files().values()}


def test_while_documents_are_indexed_each_backup_is_a_whole_generation(root: Path, kept: Directory):
    stop, taken = threading.Event(), list[Backup]()

    def index() -> None:
        number = 0
        while not stop.is_set():
            put(root, f"n{number}", gone=(f"n{number - 1}",))
            number += 1

    thread = threading.Thread(target=index)
    thread.start()
    try:
        while len(taken) < 2 or taken[-1].manifest.generation < 8:
            taken.append(back_up(kept, root, "c", keep=2).backup)
    finally:
        stop.set()
        thread.join()
    found, damaged = Backups(kept, "c").listing()
    assert ([each.name for each in found], damaged) == ([each.name for each in taken[:-3:-1]], {})
    assert files(root) == {name for backup in found for name in backup.files()}


def test_only_the_newest_are_kept_with_the_files_that_they_share(root: Path, kept: Directory):
    names = []
    for number in range(4):
        put(root, f"n{number}")
        names.append(back_up(kept, root, "c", f"s{number}").backup.name)
    put(root, "last")
    taken = back_up(kept, root, "c", "s4", keep=2)
    assert taken.removed == ["s2", "s1", "s0"]
    found, _ = Backups(kept, "c").listing()
    assert [each.name for each in found] == ["s4", "s3"]
    assert files(root) == found[0].files().keys() | found[1].files().keys()


def test_the_one_just_made_stays_whatever_the_clock_says(root: Path, kept: Directory, monkeypatch: Any):
    back_up(kept, root, "c", "old")
    monkeypatch.setattr("time.time", lambda: 1.0)
    assert back_up(kept, root, "c", "new", keep=1).removed == ["old"]
    assert Backups(kept, "c").names() == ["new"]


def test_a_backup_is_forgotten_with_what_only_it_has(root: Path, kept: Directory):
    first = back_up(kept, root, "c", "first").backup
    put(root, "e")
    second = back_up(kept, root, "c", "second").backup
    forget(kept, root, "c", "first")
    assert files(root) == second.files().keys()
    forget(kept, root, "c", "second")
    assert files(root) == set()
    with pytest.raises(BackupMissing, match="no snapshot 'first'"):
        forget(kept, root, "c", "first")
    assert first.files().keys() & second.files().keys()


def test_what_cannot_be_read_is_listed_apart_and_keeps_its_files(root: Path, kept: Directory):
    back_up(kept, root, "c", "good")
    put(root, "e")
    back_up(kept, root, "c", "bad")
    path = root / "kept" / "c" / "snapshots" / "bad.json"
    path.write_bytes(path.read_bytes().replace(b'"position":', b'"pos":'))
    before = files(root)
    found, damaged = Backups(kept, "c").listing()
    assert [each.name for each in found] == ["good"]
    assert "'bad' cannot be read: c/snapshots/bad.json: it does not match its checksum" in damaged["bad"]
    forget(kept, root, "c", "good")
    assert files(root) == before  # some may be those of the one that cannot be read
    forget(kept, root, "c", "bad")
    assert files(root) == set()


def test_a_newer_format_is_not_guessed_at(root: Path, kept: Directory):
    backup = back_up(kept, root, "c", "first").backup
    body = backup.model_dump_json(by_alias=True).replace('{"format":1', '{"format":2', 1).encode()
    (root / "kept" / "c" / "snapshots" / "first.json").write_bytes(seal(body))
    with pytest.raises(DamagedBackup, match="format"):
        Backups(kept, "c").find("first")


def test_folders_of_a_repository_may_be_renamed(root: Path, kept: Directory):
    back_up(kept, root, "c", "first")
    shutil.move(root / "kept" / "c", root / "kept" / "d")
    found = Backups(kept, "d").find("first")
    assert found.collection == "d"


def test_one_at_a_time(root: Path, kept: Directory):
    with workplace(root, "c"):
        with pytest.raises(Busy, match="'c' is under way"):
            back_up(kept, root, "c")
        with pytest.raises(Busy):
            forget(kept, root, "c", "first")
    back_up(kept, root, "c")
    assert folders(root) == ["c"]


def test_killed_at_any_step_it_leaves_no_backup_or_a_whole_one(root: Path, kept: Directory):
    step, died = 0, True
    while died:
        step += 2
        died = killed_before(step, partial(back_up, kept, root, "c", f"s{step}"))
        found, damaged = Backups(kept, "c").listing()
        assert damaged == {}
        for backup in found:
            assert backup.files().keys() <= files(root)
    assert step > 20
    assert f"s{step}" in Backups(kept, "c").names()
    assert folders(root) == ["c"]  # what the dead left is gone


def test_killed_while_it_forgets_it_leaves_the_others_whole(root: Path, kept: Directory):
    back_up(kept, root, "c", "first")
    put(root, "e", gone=("d",))
    step, died = 0, True
    while died:
        step += 2
        died = killed_before(step, partial(back_up, kept, root, "c", f"s{step}", 1))
        for backup in Backups(kept, "c").listing()[0]:
            assert backup.files().keys() <= files(root)
    assert Backups(kept, "c").names() == [f"s{step}"]
    assert files(root) == Backups(kept, "c").find(f"s{step}").files().keys()


def test_a_model_of_a_backup_reads_what_it_writes(root: Path, kept: Directory):
    backup = back_up(kept, root, "c", "first").backup
    assert Backup.model_validate_json(backup.model_dump_json(by_alias=True)) == backup
