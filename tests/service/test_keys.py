"""The file of keys, and what a running service makes of it."""

import json
import stat
from datetime import datetime, timedelta
from hashlib import sha256
from pathlib import Path
from threading import Thread

import pytest
from pydantic import ValidationError

from service.keys import Key, KeyFileError, Keys, change_keys, new_key, read_keys


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "keys.json"


def add(path: Path, name: str, *scopes: str) -> str:
    secret, key = new_key(name, scopes)
    change_keys(path, lambda keys: [*keys, key])
    return secret


def scopes_of(key: Key | None) -> tuple[str, ...] | None:
    return key and key.scopes


def test_a_key_is_256_bits_of_which_only_a_hash_is_kept(path: Path):
    secret = add(path, "reader", "read")
    assert len(secret) == len("winnow_") + 43, "43 digits to the base of 64"
    (kept,) = json.loads(path.read_text())["keys"]
    created = datetime.fromisoformat(kept.pop("created"))
    assert datetime.now(created.tzinfo) - created < timedelta(minutes=1)
    digest = sha256(secret.encode()).hexdigest()
    assert kept == {"name": "reader", "scopes": ["read"], "sha256": digest, "rate": None}
    assert secret not in path.read_text()


def test_only_its_owner_reads_the_file_and_nothing_is_left_beside_it(path: Path):
    add(path, "reader", "read")
    add(path, "writer", "write")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [file.name for file in path.parent.iterdir()] == ["keys.json"]


@pytest.mark.parametrize("name", ["", "a b", "../x", "é", "x" * 65])
def test_a_name_is_plain(name: str):
    with pytest.raises(ValidationError):
        new_key(name, ["read"])


@pytest.mark.parametrize("rate", ["", "0/minute", "600", "600/fortnight", "600/minute; 1/second", "-1/day"])
def test_a_rate_is_so_many_in_a_time(rate: str):
    with pytest.raises(ValidationError):
        new_key("reader", ["read"], rate)


def test_a_key_is_known_by_its_secret(path: Path):
    reader, writer = add(path, "reader", "read"), add(path, "writer", "read", "write")
    keys = Keys(path)
    assert scopes_of(keys.find(reader)) == ("read",)
    assert scopes_of(keys.find(writer)) == ("read", "write")
    for stranger in ("", "reader", reader[:-1], reader + "x", new_key("other", ["admin"])[0]):
        assert keys.find(stranger) is None


def test_the_key_of_the_settings_may_do_everything(path: Path):
    reader = add(path, "reader", "read")
    keys = Keys(path, "sésame")
    assert scopes_of(keys.find("sésame".encode().decode("latin-1"))) == ("read", "write", "admin")
    assert scopes_of(keys.find(reader)) == ("read",), "beside it"


def test_no_key_is_asked_for_where_there_is_none(path: Path):
    assert not Keys(path).asked()
    assert Keys(path, "sesame").asked()


def test_a_running_service_sees_what_changes(path: Path):
    keys = Keys(path)
    reader = add(path, "reader", "read")
    assert keys.asked()
    assert keys.find(reader)
    change_keys(path, lambda known: [])
    assert keys.asked(), "the last key is gone, and the door does not open"
    assert keys.find(reader) is None


@pytest.mark.parametrize(
    "damage",
    [b"", b"{", b"[]", b'{"keys": [{"name": "reader"}]}', b'{"keys": [], "more": 1}', b"\xff"],
    ids=["empty", "half", "a list", "a key without its hash", "an unknown field", "no text"],
)
def test_a_damaged_file_leaves_the_keys_as_they_were(path: Path, damage: bytes):
    reader = add(path, "reader", "read")
    keys = Keys(path)
    whole = path.read_bytes()
    path.write_bytes(damage)
    assert keys.asked()
    assert keys.find(reader)
    assert "is damaged" in keys.error
    assert "still hold" in keys.error
    path.write_bytes(whole)
    assert keys.asked()
    assert keys.error is None
    assert keys.find(reader)


def test_a_file_that_goes_leaves_the_keys_as_they_were(path: Path):
    reader = add(path, "reader", "read")
    keys = Keys(path)
    path.unlink()
    assert keys.asked()
    assert keys.find(reader)
    assert "No such file" in keys.error


def test_a_file_that_is_damaged_at_the_start_is_an_error(path: Path):
    path.write_text("{")
    with pytest.raises(KeyFileError, match=r"keys\.json is damaged"):
        Keys(path)
    with pytest.raises(KeyFileError):
        add(path, "reader", "read")
    assert path.read_text() == "{", "nothing is written over what could not be read"


def test_two_keys_of_one_name_are_damage(path: Path):
    add(path, "reader", "read")
    twice = json.loads(path.read_text())["keys"] * 2
    path.write_text(json.dumps({"keys": twice}))
    with pytest.raises(KeyFileError, match="two keys have the same name"):
        read_keys(path)


def test_keys_that_are_added_at_the_same_time_are_all_kept(path: Path):
    threads = [Thread(target=add, args=(path, f"key-{number}", "read")) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(key.name for key in read_keys(path)) == [f"key-{number}" for number in range(8)]
