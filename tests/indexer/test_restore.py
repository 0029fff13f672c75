"""From backups to collections: what comes back, what is refused, what the writer of the old one may do."""

import errno
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from indexer.backup import Backup, Backups, DamagedBackup, back_up
from indexer.collection import (
    CollectionExists,
    CollectionSchema,
    collection_path,
    create_collection,
    drop_collection,
    list_collections,
)
from indexer.document import Document
from indexer.lock import Lock, wanted
from indexer.queue.contract import delete, upsert
from indexer.queue.logs import Logs
from indexer.repository import Directory
from indexer.restore import restore
from indexer.segment.manifest import Manifest, read_current, seal
from indexer.worker import Worker, drain
from indexer.workplace import Busy
from indexer.writer import Writer
from tests.indexer.dying import killed_before
from tests.indexer.reading import Reading, quick_directory
from tests.nets import word_overlap
from tests.redis_server import RedisServer

SCHEMA = CollectionSchema(language="none", components=("bm25",))


@pytest.fixture
def root() -> Iterator[Path]:
    """A data directory with the collection `c` of documents b and d, in two segments, where a was deleted."""
    with quick_directory() as path:
        create_collection(path, "c", SCHEMA)
        write(path, "a", "b")
        drain(path, "c", word_overlap)
        write(path, "d", gone="a")
        drain(path, "c", word_overlap)
        yield path


@pytest.fixture
def kept(root: Path) -> Directory:
    return Directory("r", root / "kept")


def write(root: Path, *ids: str, gone: str | None = None) -> None:
    log = Logs().open(collection_path(root, "c"))
    log.append([upsert(Document(id=each, text=f"moon {each}")) for each in ids])
    log.append([delete(gone)] if gone else [])
    log.close()


def ids(root: Path, name: str = "c") -> list[str]:
    """Documents of a collection, of which every index is checked."""
    reading = Reading(collection_path(root, name))
    reading.check()
    return reading.ids()


def folders(root: Path) -> list[str]:
    """What lies beside the collections too."""
    return sorted(path.name for path in (root / "collections").iterdir())


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_what_was_backed_up_comes_back_under_any_name(root: Path, kept: Directory):
    backup = back_up(kept, root, "c").backup
    restore(kept, root, backup, "copy")
    assert ids(root, "copy") == ids(root) == ["b", "d"]
    copy = read_current(collection_path(root, "copy"))
    assert copy.statistics == backup.manifest.statistics
    assert folders(root) == ["c", "copy"]


def test_a_collection_moves_between_files_and_redis_by_its_backup(
    root: Path, kept: Directory, redis: RedisServer
):
    restore(kept, root, back_up(kept, root, "c").backup, "there")
    there = Logs(redis.url)
    there.open(collection_path(root, "there")).append([upsert(Document(id="e", text="moon e"))])
    drain(root, "there", word_overlap, logs=there)
    assert ids(root, "there") == ["b", "d", "e"]
    restore(kept, root, back_up(kept, root, "there").backup, "back")
    here = Logs().open(collection_path(root, "back"))
    here.append([delete("e")])
    here.close()
    drain(root, "back", word_overlap)
    assert ids(root, "back") == ["b", "d"]


def test_what_waits_to_be_indexed_is_not_part_of_it(root: Path, kept: Directory):
    write(root, "waiting")
    restore(kept, root, back_up(kept, root, "c").backup, "copy")
    assert ids(root, "copy") == ["b", "d"]


def test_it_begins_a_log_of_its_own_and_goes_on(root: Path, kept: Directory):
    backup = back_up(kept, root, "c").backup
    assert backup.manifest.position == 4  # three documents and a deletion
    for _ in range(2):  # over itself, whose log has other positions
        restore(kept, root, backup, "c")
        assert read_current(collection_path(root, "c")).position == 0
        write(root, "e", gone="b")
        drain(root, "c", word_overlap)
        assert ids(root) == ["d", "e"]
        assert read_current(collection_path(root, "c")).position == 2


def test_its_generation_is_one_that_nobody_has_seen(root: Path, kept: Directory):
    backup = back_up(kept, root, "c").backup
    for each in "xyz":
        write(root, each)
        drain(root, "c", word_overlap)
    newest = read_current(collection_path(root, "c")).generation
    assert newest > backup.manifest.generation
    restore(kept, root, backup, "c")
    assert read_current(collection_path(root, "c")).generation == newest + 1
    drop_collection(root, "c")
    restore(kept, root, backup, "c")
    assert read_current(collection_path(root, "c")).generation == backup.manifest.generation + 1


def test_an_empty_collection_comes_back(root: Path, kept: Directory):
    create_collection(root, "empty", SCHEMA)
    restore(kept, root, back_up(kept, root, "empty").backup, "copy")
    assert ids(root, "copy") == []


def test_a_damaged_collection_is_what_one_restores_over(root: Path, kept: Directory):
    backup = back_up(kept, root, "c").backup
    for path in collection_path(root, "c").glob("manifest-*"):
        path.write_bytes(b"{}")
    restore(kept, root, backup, "c")
    assert ids(root) == ["b", "d"]


def damaged(root: Path, kept: Directory, backup: Backup, said: str) -> None:
    """Restoring is refused with these words, and nothing has changed."""
    before = contents(collection_path(root, "c"))
    for into in ("c", "copy"):
        with pytest.raises(DamagedBackup, match=said):
            restore(kept, root, backup, into)
    assert contents(collection_path(root, "c")) == before
    assert folders(root) == ["c"]


def test_a_flipped_byte_in_any_file_is_found_and_the_file_named(root: Path, kept: Directory):
    backup = back_up(kept, root, "c", "s").backup
    files = sorted((root / "kept" / "c" / "files").iterdir())
    assert len(files) == len(backup.files()) > 15
    for path in files:
        whole = path.read_bytes()
        path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
        damaged(root, kept, backup, f"'s' is damaged in c/files/{path.name}, which is .*checksum")
        path.write_bytes(whole[:-1])
        damaged(root, kept, backup, f"'s' is damaged in c/files/{path.name}")
        path.unlink()
        damaged(root, kept, backup, f"'s' is damaged in c/files/{path.name}, which is .*: it is missing")
        path.write_bytes(whole)
    restore(kept, root, backup, "c")


def test_any_flipped_byte_of_the_description_is_found(root: Path, kept: Directory):
    back_up(kept, root, "c", "s")
    path = root / "kept" / "c" / "snapshots" / "s.json"
    whole = path.read_bytes()
    for at in range(0, len(whole), 97):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        with pytest.raises(DamagedBackup, match=r"c/snapshots/s\.json"):
            Backups(kept, "c").find("s")


def test_a_link_in_place_of_a_file_is_refused(root: Path, kept: Directory):
    backup = back_up(kept, root, "c", "s").backup
    path = next((root / "kept" / "c" / "files").iterdir())
    path.rename(root / "elsewhere")
    path.symlink_to(root / "elsewhere")
    damaged(root, kept, backup, "is a link, or no plain file")


OUTSIDE = ["../outside", "/tmp/outside", "..", ".", "", "a/b", "a\\..\\b", "a\n", "a\0"]


def crafted(manifest: Manifest, change: Callable[[dict[str, Any]], object]) -> bytes:
    """A sealed description of a backup whose manifest was changed."""
    given = manifest.model_dump(mode="json", by_alias=True)
    change(given)
    return seal(
        orjson.dumps({"format": 1, "collection": "c", "name": "s", "created": 0.0, "manifest": given})
    )


@pytest.mark.parametrize("name", OUTSIDE)
@pytest.mark.parametrize("place", ["segment", "file", "tombstones", "lexical", "lexical file", "checksum"])
def test_no_name_in_a_backup_becomes_a_path_outside(root: Path, kept: Directory, name: str, place: str):
    def change(given: dict[str, Any]) -> None:
        segment, lexical = given["segments"][0], given["lexical"]
        match place:
            case "segment":
                segment["name"] = name
            case "file":
                segment["files"][name] = segment["files"].pop("store.bin")
            case "tombstones":
                segment["tombstones"] = name
            case "lexical":
                lexical["directory"] = name
            case "lexical file":
                lexical["files"][name] = lexical["files"].pop("meta.json")
            case "checksum":
                segment["files"]["store.bin"]["sha256"] = name

    backup = back_up(kept, root, "c", "s").backup
    path = root / "kept" / "c" / "snapshots" / "s.json"
    path.write_bytes(crafted(backup.manifest, lambda given: None))
    assert Backups(kept, "c").find("s").manifest == backup.manifest
    path.write_bytes(crafted(backup.manifest, change))
    with pytest.raises(DamagedBackup, match="'s' cannot be read"):
        Backups(kept, "c").find("s")


def test_what_no_program_of_ours_wrote_is_not_shown(root: Path, kept: Directory):
    """Its checksums are right, but the rows are not."""
    backup = back_up(kept, root, "c", "s").backup
    path = root / "kept" / "c" / "snapshots" / "s.json"
    path.write_bytes(crafted(backup.manifest, lambda given: given["segments"][0].update(rows=77)))
    damaged(root, kept, Backups(kept, "c").find("s"), "cannot be opened: .* rows where the manifest says 77")


@pytest.mark.parametrize("stride", [4, pytest.param(1, marks=pytest.mark.slow)])  # slow: 10 s
@pytest.mark.parametrize("taken", [False, True])
def test_killed_at_any_step_it_shows_the_old_collection_or_the_new(
    root: Path, kept: Directory, taken: bool, stride: int
):
    backup = back_up(kept, root, "c", "s").backup
    into = "c" if taken else "copy"
    write(root, "later")
    drain(root, "c", word_overlap)
    step, seen, died = 1 - stride, set(), True
    while died:
        step += stride
        died = killed_before(step, lambda: restore(kept, root, backup, into))
        if into in list_collections(root):
            seen.add(tuple(ids(root, into)))
    assert seen == ({("b", "d", "later"), ("b", "d")} if taken else {("b", "d")})
    assert step > 20
    assert folders(root) == (["c"] if taken else ["c", "copy"])
    assert ids(root, "c") == ["b", "d"] if taken else ["b", "d", "later"]


class Working:
    """A worker that goes round in a thread."""

    def __init__(self, root: Path) -> None:
        self.worker = Worker(root, word_overlap)
        self.stop = threading.Event()
        self.thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        while not self.stop.is_set():
            self.worker.turn() or self.stop.wait(0.01)

    def __enter__(self) -> Worker:
        self.thread.start()
        return self.worker

    def __exit__(self, *_: object) -> None:
        self.stop.set()
        self.thread.join()
        self.worker.close()


def test_a_worker_lets_go_and_goes_on_with_what_was_restored(
    root: Path, kept: Directory, caplog: pytest.LogCaptureFixture
):
    backup = back_up(kept, root, "c").backup
    with Working(root):
        for number in range(5):
            write(root, *(f"n{number}-{each}" for each in range(20)))
            restore(kept, root, backup, "c")
            assert ids(root) == ["b", "d"]
        write(root, "e")
        until_shown(root, ["b", "d", "e"])
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


def until_shown(root: Path, expected: list[str]) -> None:
    for _ in range(500):
        if Reading(collection_path(root, "c")).ids() == expected:
            return
        threading.Event().wait(0.02)
    raise AssertionError(Reading(collection_path(root, "c")).ids())


def test_a_writer_that_does_not_let_go_keeps_its_collection(root: Path, kept: Directory):
    backup = back_up(kept, root, "c").backup
    write(root, "e")
    drain(root, "c", word_overlap)
    lock = Lock(collection_path(root, "c"))
    with pytest.raises(Busy, match="nothing was restored: collection 'c' has a writer already, process"):
        restore(kept, root, backup, "c", writer_seconds=0.1)
    lock.release()
    assert not wanted(collection_path(root, "c"))
    assert ids(root) == ["b", "d", "e"]


def test_one_who_asked_for_a_collection_and_died_does_not_keep_workers_away(root: Path):
    (collection_path(root, "c") / "WANTED").touch()
    write(root, "e")
    worker = Worker(root, word_overlap)
    while worker.turn():
        pass
    worker.close()
    assert ids(root) == ["b", "d", "e"]


def test_a_writer_of_what_was_dropped_writes_nothing_into_what_is_restored(
    root: Path, kept: Directory, monkeypatch: pytest.MonkeyPatch
):
    """In the middle of its batch the collection is dropped, and restored as soon as that may be."""
    backup = back_up(kept, root, "c").backup
    write(root, "old")
    worker = Worker(root, word_overlap)
    build = Writer._build
    restoring = threading.Thread(target=restore, args=(kept, root, backup, "c"))

    def dropped(*arguments: Any) -> Any:
        monkeypatch.undo()
        drop_collection(root, "c")
        restoring.start()
        restoring.join(0.3)
        assert list_collections(root) == []  # it waits for this writer
        return build(*arguments)

    monkeypatch.setattr(Writer, "_build", dropped)
    while worker.turn() or restoring.is_alive():
        pass
    worker.close()
    assert ids(root) == ["b", "d"]
    assert folders(root) == ["c"]


def test_a_file_system_that_cannot_exchange_says_so(
    root: Path, kept: Directory, monkeypatch: pytest.MonkeyPatch
):
    def cannot(*_: object) -> None:
        raise OSError(errno.EINVAL, "Invalid argument")

    backup = back_up(kept, root, "c").backup
    monkeypatch.setattr("indexer.restore.exchange", cannot)
    with pytest.raises(CollectionExists, match="drop it first, or restore into another name"):
        restore(kept, root, backup, "c")
    assert ids(root) == ["b", "d"]
