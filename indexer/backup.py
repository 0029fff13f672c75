"""Backups of a collection: one generation each, in a repository.

    COLLECTION/files/SHA256          the files of all backups, each once
    COLLECTION/snapshots/NAME.json   a manifest that names them, sealed, written last

Segments are immutable and files are named by content, so a backup copies only what no earlier one has, and a
backup that was not finished is none. What waits in the log is not part of a generation, nor of its backup.
"""

import os
import secrets
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from indexer.collection import NAME, CollectionMissing, collection_path
from indexer.repository import Repository
from indexer.segment.arrays import CorruptFile
from indexer.segment.durable import write_file
from indexer.segment.manifest import CURRENT, FileEntry, Manifest, read_current, seal, unseal
from indexer.workplace import workplace

SUFFIX = ".json"
MOST_TRIES = 100

Progress = Callable[[int, int], None]
"""Hears how many files of how many are copied."""


class BackupExists(Exception):  # noqa: N818 (it says a state)
    """There is a backup of this name already."""


class BadName(ValueError):  # noqa: N818 (it says a state)
    """A name that could be a path."""


class BackupMissing(Exception):  # noqa: N818 (it says a state)
    """There is no backup of this name."""


class DamagedBackup(CorruptFile):
    """A backup does not hold what was put into it, or holds what no backup may."""


class Backup(BaseModel):
    """What `NAME.json` holds. The manifest is that of the generation; `created` is in Unix seconds."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal[1] = 1
    collection: str = Field(pattern=f"^{NAME.pattern}$")
    name: str = Field(pattern=f"^{NAME.pattern}$")
    created: float = Field(default_factory=time.time)
    manifest: Manifest

    def files(self) -> dict[str, FileEntry]:
        """Its files by what they are called in the repository: their checksums."""
        return {entry.sha256: entry for entry in self.manifest.files().values()}

    def size(self) -> int:
        """How many bytes it has, those included that it shares with other backups."""
        return sum(entry.size for entry in self.files().values())


@dataclass(frozen=True)
class Taken:
    """A new backup, how many bytes were copied for it, and which backups were removed for being too old."""

    backup: Backup
    copied: int
    removed: list[str]


class Backups:
    """The backups of one collection in a repository. Every method may raise RepositoryError."""

    def __init__(self, repository: Repository, collection: str) -> None:
        self.collection = checked(collection)
        self._repository = repository
        self._files = f"{collection}/files"
        self._snapshots = f"{collection}/snapshots"

    def names(self) -> list[str]:
        """Names of all there are, readable or not, sorted."""
        names = [name.removesuffix(SUFFIX) for name in self._repository.sizes(self._snapshots)]
        return sorted(name for name in names if NAME.fullmatch(name))

    def find(self, name: str) -> Backup:
        """Read what one backup consists of. BackupMissing, DamagedBackup."""
        path = self._path(name)
        try:
            backup = Backup.model_validate_json(unseal(self._repository.read(path), path))
        except FileNotFoundError as error:
            raise BackupMissing(f"there is no snapshot {name!r} of collection {self.collection!r}") from error
        except (CorruptFile, ValidationError) as error:
            raise DamagedBackup(f"snapshot {name!r} cannot be read: {error}") from error
        return backup.model_copy(
            update={"collection": self.collection, "name": name}
        )  # folders may be renamed

    def listing(self) -> tuple[list[Backup], dict[str, str]]:
        """All backups, newest first, and what is wrong with those that cannot be read, by name."""
        found: list[Backup] = []
        damaged: dict[str, str] = {}
        for name in self.names():
            try:
                found.append(self.find(name))
            except DamagedBackup as error:
                damaged[name] = str(error)
            except BackupMissing:  # removed since
                continue
        return sorted(found, key=lambda backup: -backup.created), damaged

    def add(self, name: str, manifest: Manifest, place: Path, progress: Progress) -> tuple[Backup, int]:
        """Copy what `place` holds by checksum and write the backup; give it and how many bytes were copied.

        CorruptFile, and no backup, if a file is not what the manifest says.
        """
        path = self._path(name)
        there = self._repository.sizes(self._files)
        backup = Backup(collection=self.collection, name=name, manifest=manifest)
        missing = [entry for file, entry in backup.files().items() if there.get(file) != entry.size]
        for done, entry in enumerate(missing):
            progress(done, len(missing))
            if FileEntry.of(place / entry.sha256) != entry:
                file = next(file for file, each in manifest.files().items() if each == entry)
                raise CorruptFile(f"{self.collection}/{file}: the bytes do not match the manifest's checksum")
            self._repository.upload(place / entry.sha256, self._file(entry))
        progress(len(missing), len(missing))
        description = place / f"{name}{SUFFIX}"
        write_file(description, seal(backup.model_dump_json(by_alias=True).encode()))
        self._repository.upload(description, path)
        return backup, sum(entry.size for entry in missing)

    def download(self, backup: Backup, target: Path, progress: Progress) -> None:
        """Copy the files of a backup below `target` as its manifest has them. DamagedBackup."""
        files = backup.manifest.files()
        for done, (path, entry) in enumerate(files.items()):
            progress(done, len(files))
            (target / path).parent.mkdir(parents=True, exist_ok=True)
            self._download(backup, entry, path, target / path)
        progress(len(files), len(files))

    def older(self, name: str, kept: int) -> list[str]:
        """Names of the backups beside this one, without the `kept` newest of them."""
        return [backup.name for backup in self.listing()[0] if backup.name != name][kept:]

    def remove(self, names: Sequence[str]) -> None:
        """Remove backups, and then the files that no other backup names."""
        for name in names:
            self._repository.remove(self._path(name))
        backups, damaged = self.listing()
        if damaged:  # whatever is left may be theirs
            return
        named = {file for backup in backups for file in backup.files()}
        for file in self._repository.sizes(self._files).keys() - named:
            self._repository.remove(f"{self._files}/{file}")

    def _download(self, backup: Backup, entry: FileEntry, path: str, target: Path) -> None:
        file = self._file(entry)
        try:
            self._repository.download(file, target)
            wrong = None if FileEntry.of(target) == entry else "its bytes do not match its checksum"
        except FileNotFoundError:
            wrong = "it is missing"
        except CorruptFile as error:
            wrong = str(error)
        if wrong is not None:
            raise DamagedBackup(f"snapshot {backup.name!r} is damaged in {file}, which is {path}: {wrong}")

    def _file(self, entry: FileEntry) -> str:
        return f"{self._files}/{entry.sha256}"

    def _path(self, name: str) -> str:
        return f"{self._snapshots}/{checked(name)}{SUFFIX}"


def back_up(
    repository: Repository,
    root: Path,
    collection: str,
    name: str | None = None,
    keep: int | None = None,
    progress: Progress = lambda done, total: None,
) -> Taken:
    """Back up the current generation of a collection below `root`, by default under the time as its name.

    Then only the newest `keep` backups of the collection stay in the repository, this one among them.
    BackupExists, Busy, CollectionMissing, RepositoryError; CorruptFile if the collection is damaged.
    """
    backups, name = Backups(repository, collection), name or _fresh_name()
    with workplace(root, collection) as place:
        if name in backups.names():
            raise BackupExists(f"there is a snapshot {name!r} of collection {collection!r} already")
        manifest = _hold(collection_path(root, collection), place)
        backup, copied = backups.add(name, manifest, place, progress)
        removed = [] if keep is None else backups.older(name, keep - 1)
        if removed:
            backups.remove(removed)
    return Taken(backup, copied, removed)


def forget(repository: Repository, root: Path, collection: str, name: str) -> None:
    """Remove a backup and the files that are only its. BackupMissing, Busy, RepositoryError."""
    backups = Backups(repository, collection)
    with workplace(root, collection):
        if name not in backups.names():
            raise BackupMissing(f"there is no snapshot {name!r} of collection {collection!r}")
        backups.remove([name])


def _hold(directory: Path, place: Path) -> Manifest:
    """Link what the current generation names into `place`, by checksum, and give its manifest.

    Once linked, files outlast the generation. Before that a sweep may come first, and then there is a newer
    generation to take.
    """
    tries = 0
    while True:
        tries += 1
        try:
            manifest = read_current(directory)
            for path, entry in manifest.files().items():
                with suppress(FileExistsError):
                    os.link(directory / path, place / entry.sha256)
        except FileNotFoundError as error:
            if not (directory / CURRENT).exists():
                raise CollectionMissing(f"there is no collection {directory.name!r}") from error
            if tries == MOST_TRIES:
                raise CorruptFile(f"{error.filename}: the file is missing") from error
        else:
            return manifest


def checked(name: str) -> str:
    """Return a name of a collection or backup that can be no path; BadName for any other."""
    if not NAME.fullmatch(name):
        raise BadName(
            f"{name[:80]!r} can name neither a collection nor a snapshot: use a-z, 0-9, '_' and '-'"
        )
    return name


def _fresh_name() -> str:
    return f"{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}-{secrets.token_hex(3)}"
