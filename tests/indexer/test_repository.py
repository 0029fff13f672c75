"""Both kinds of repository keep files alike; what goes wrong in either is one kind of error."""

import os
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from indexer.repository import Directory, Repository, RepositoryError, check_place, open_repository
from indexer.segment.arrays import CorruptFile


@pytest.fixture(params=["directory", "file://", "memory://"])
def repository(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Repository]:
    places = {
        "directory": str(tmp_path / "kept"),
        "file://": f"file://{tmp_path}/kept",
        "memory://": f"memory://{uuid4().hex}",
    }
    return open_repository("r", places[request.param])


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "source"
    path.write_bytes(b"moon")
    return path


def test_what_is_uploaded_is_there_until_it_is_removed(repository: Repository, source: Path, tmp_path: Path):
    assert repository.sizes("docs/files") == {}
    repository.upload(source, "docs/files/a")
    repository.upload(source, "docs/files/b")
    assert repository.sizes("docs/files") == {"a": 4, "b": 4}
    assert repository.sizes("docs") == {}  # which has a folder and no files
    assert repository.read("docs/files/a") == b"moon"
    repository.download("docs/files/b", tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == b"moon"
    repository.remove("docs/files/a")
    repository.remove("docs/files/a")
    assert repository.sizes("docs/files") == {"b": 4}


def test_an_upload_replaces_and_is_a_copy(repository: Repository, source: Path):
    repository.upload(source, "docs/a")
    source.write_bytes(b"the sea")
    assert repository.read("docs/a") == b"moon"
    repository.upload(source, "docs/a")
    assert (repository.read("docs/a"), repository.sizes("docs")) == (b"the sea", {"a": 7})


def test_what_is_not_there_is_no_file(repository: Repository, tmp_path: Path):
    with pytest.raises(FileNotFoundError):
        repository.read("docs/a")
    with pytest.raises(FileNotFoundError):
        repository.download("docs/a", tmp_path / "back")


@pytest.mark.parametrize("kind", ["link", "pipe", "directory"])
def test_a_directory_follows_no_link_and_opens_no_pipe(tmp_path: Path, source: Path, kind: str):
    path = tmp_path / "kept" / "docs" / "a"
    path.parent.mkdir(parents=True)
    make = {"link": lambda: path.symlink_to(source), "pipe": lambda: os.mkfifo(path), "directory": path.mkdir}
    make[kind]()
    repository = Directory("r", tmp_path / "kept")
    assert repository.sizes("docs") == {}
    for reading in (lambda: repository.read("docs/a"), lambda: repository.download("docs/a", tmp_path / "b")):
        with pytest.raises(CorruptFile, match="docs/a is a link, or no plain file"):
            reading()


def test_an_upload_that_fails_leaves_what_was_there(
    tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch
):
    repository = Directory("r", tmp_path / "kept")
    repository.upload(source, "docs/a")
    source.write_bytes(b"the sea")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", full)
    with pytest.raises(
        RepositoryError, match="repository 'r' does not work: No space left on device"
    ) as error:
        repository.upload(source, "docs/a")
    assert error.value.errno == 28
    assert (repository.read("docs/a"), repository.sizes("docs")) == (b"moon", {"a": 4})


def test_what_a_store_raises_is_said_with_the_repositorys_name(source: Path, monkeypatch: pytest.MonkeyPatch):
    class Refused(Exception):
        pass

    def refuse(*_: object, **__: object) -> None:
        raise Refused("no credentials")

    repository = open_repository("nightly", "memory://x")
    monkeypatch.setattr("fsspec.implementations.memory.MemoryFileSystem.put_file", refuse)
    with pytest.raises(RepositoryError, match="repository 'nightly' does not work: Refused: no credentials"):
        repository.upload(source, "docs/a")


@pytest.mark.parametrize("place", ["backups", "/mnt/backups", "file:///mnt/backups", "memory://x"])
def test_places_that_can_be_opened(place: str):
    check_place(place)


@pytest.mark.parametrize(("place", "why"), [("s3://bucket/x", "s3fs"), ("nope://x", "not known: nope")])
def test_a_place_that_nothing_installed_opens_says_what_to_install(place: str, why: str):
    with pytest.raises(ValueError, match=why):
        check_place(place)
