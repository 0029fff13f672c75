"""`winnow keys` as a user types it."""

from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from service.cli import app
from service.keys import Keys


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch: pytest.MonkeyPatch):
    for name in ("WINNOW_DATA_DIR", "WINNOW_KEYS_FILE"):
        monkeypatch.delenv(name, raising=False)
    for name in ("HF_HUB_OFFLINE", "TOKENIZERS_PARALLELISM", "NUMBA_CACHE_DIR", "OMP_WAIT_POLICY"):
        monkeypatch.setenv(name, "1")  # as commands set them for their process, which is that of all tests


def winnow(data: Path, *arguments: str) -> Result:
    return CliRunner().invoke(app, ["keys", *arguments, "--data-dir", str(data)])


def test_a_key_is_printed_once_and_works(tmp_path: Path):
    result = winnow(tmp_path, "add", "shop", "--scope", "write", "--scope", "read", "--rate", "600/minute")
    assert result.exit_code == 0, result.output
    key = Keys(tmp_path / "keys.json").find(result.stdout.strip())
    assert (key.name, key.scopes, key.rate) == ("shop", ("read", "write"), "600/minute")
    listed = winnow(tmp_path, "list").stdout
    assert all(word in listed for word in ("shop", "read, write", "600/minute"))
    assert result.stdout.strip() not in listed


def test_a_key_that_is_removed_is_known_no_more(tmp_path: Path):
    secret = winnow(tmp_path, "add", "shop", "--scope", "read").stdout.strip()
    winnow(tmp_path, "add", "other", "--scope", "admin")
    assert winnow(tmp_path, "remove", "shop").exit_code == 0
    keys = Keys(tmp_path / "keys.json")
    assert keys.find(secret) is None
    assert "other" in winnow(tmp_path, "list").stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("list",), "winnow keys add"),
        (("remove", "shop"), "there is no key 'shop'"),
        (("add", "shop"), "--scope"),
        (("add", "shop", "--scope", "all"), "there is no scope 'all'"),
        (("add", "a b", "--scope", "read"), "name"),
        (("add", "shop", "--scope", "read", "--rate", "often"), "rate"),
    ],
)
def test_a_mistake_is_said_and_changes_nothing(tmp_path: Path, arguments: tuple[str, ...], said: str):
    result = winnow(tmp_path, *arguments)
    assert result.exit_code in (1, 2)
    assert said in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_name_is_given_once(tmp_path: Path):
    winnow(tmp_path, "add", "shop", "--scope", "read")
    result = winnow(tmp_path, "add", "shop", "--scope", "admin")
    assert result.exit_code == 1
    assert "already" in result.stderr


def test_a_damaged_file_is_left_alone(tmp_path: Path):
    (tmp_path / "keys.json").write_text("{")
    for arguments in (("list",), ("remove", "shop"), ("add", "shop", "--scope", "read")):
        result = winnow(tmp_path, *arguments)
        assert result.exit_code == 1
        assert "is damaged" in result.stderr
    assert (tmp_path / "keys.json").read_text() == "{"
