"""Keys with scopes: a JSON file of names and hashes, which a running service reads again when it changes.

A key is 256 random bits, so its plain SHA-256 is as hard to invert as the key is to guess; slow hashes are
for passwords that people choose. The file is looked at with every request, which costs a microsecond or two,
so that a key which is removed is refused from the next request on.
"""

import fcntl
import hmac
import logging
import os
import secrets
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Self

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError, model_validator

from indexer.segment.durable import replace_file
from service.scopes import SCOPES, Scope
from service.settings import RATE

log = logging.getLogger(__name__)

NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"
PREFIX = "winnow_"  # so that a key which leaks into a repository or a log is found
OWNER_ONLY = 0o600

Stamp = tuple[int, int, int]


class KeyFileError(Exception):
    """The file is there and holds no keys that can be read."""


class Key(BaseModel):
    """What is known of a key: never the key itself. `rate` is of this key in place of the service's."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(pattern=NAME)
    scopes: tuple[Scope, ...] = Field(min_length=1)
    sha256: str = Field(pattern="^[0-9a-f]{64}$")
    created: AwareDatetime
    rate: str | None = Field(None, pattern=RATE)


class KeyFile(BaseModel):
    """The file as a whole."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    keys: tuple[Key, ...] = ()

    @model_validator(mode="after")
    def _names_differ(self) -> Self:
        names = [key.name for key in self.keys]
        if len(set(names)) < len(names):
            raise ValueError("two keys have the same name")
        return self


def new_key(name: str, scopes: Sequence[Scope], rate: str | None = None) -> tuple[str, Key]:
    """A new key and what is kept of it. ValidationError for a name or a rate that is none."""
    secret = PREFIX + secrets.token_urlsafe(32)
    return secret, _kept(secret, name, scopes, rate)


def read_keys(path: Path) -> tuple[Key, ...]:
    """The keys of a file, in its order. FileNotFoundError; KeyFileError says what is wrong."""
    try:
        return KeyFile.model_validate_json(path.read_bytes()).keys
    except FileNotFoundError:
        raise
    except OSError as error:
        raise KeyFileError(f"{path} cannot be read: {error.strerror}") from error
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"])) or "the file"
        raise KeyFileError(f"{path} is damaged: {place}: {first['msg']}") from error


def change_keys(path: Path, change: Callable[[tuple[Key, ...]], Sequence[Key]]) -> None:
    """Replace the file in one step by what `change` makes of its keys; none are in one that is not there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with _alone(path.parent):
        try:
            keys = read_keys(path)
        except FileNotFoundError:
            keys = ()
        changed = KeyFile(keys=tuple(change(keys)))
        replace_file(path, changed.model_dump_json(indent=1).encode() + b"\n", OWNER_ONLY)


class Keys:
    """The keys of a running service: those of the file and, with every scope, the one of the settings.

    KeyFileError where the file is damaged at the start. Later the last good keys stay, and `error` says why.
    """

    def __init__(self, path: Path, own: str | None = None) -> None:
        self.error: str | None = None
        self._path = path
        self._own = () if own is None else (_kept(own, "WINNOW_API_KEY", SCOPES),)
        self._stamp = _stamp(path)
        self._filed = read_keys(path) if self._stamp else ()
        self._asked = own is not None or self._stamp is not None

    def asked(self) -> bool:
        """Whether keys are asked for: not before there was a file, but from then on even if it goes."""
        self.refresh()
        return self._asked

    def find(self, given: str) -> Key | None:
        """What is known of a key as it stood in a header; None if it is none of ours."""
        digest = sha256(given.encode("latin-1")).hexdigest()
        found = None
        for key in (*self._own, *self._filed):  # all of them, so that the time taken tells nothing
            if hmac.compare_digest(key.sha256, digest):
                found = key
        return found

    def refresh(self) -> None:
        """Read the file again if it is another than it was."""
        stamp = _stamp(self._path)
        if stamp == self._stamp:
            return
        self._stamp = stamp
        try:
            self._filed, self.error, self._asked = read_keys(self._path), None, True
        except (KeyFileError, FileNotFoundError) as error:
            self.error = f"{error}; the keys that were there before still hold"
            log.error("%s", self.error)


def _kept(secret: str, name: str, scopes: Sequence[Scope], rate: str | None = None) -> Key:
    digest = sha256(secret.encode()).hexdigest()
    return Key(name=name, scopes=tuple(scopes), sha256=digest, created=datetime.now(UTC), rate=rate)


def _stamp(path: Path) -> Stamp | None:
    try:
        found = os.stat(path)  # noqa: PTH116 - half the time of Path.stat, with every request
    except FileNotFoundError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size


@contextmanager
def _alone(directory: Path) -> Iterator[None]:
    """Two who add a key at the same time do it one after the other."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
