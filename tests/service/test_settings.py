from pathlib import Path

import pytest
from pydantic import ValidationError

from service.settings import Settings, is_loopback


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "localhost", "::1"])
def test_loopback_needs_no_key(host: str):
    assert is_loopback(host)
    assert Settings(host=host).api_key is None


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.2", "example.org", ""])
def test_beyond_loopback_a_key_is_asked_for(host: str):
    with pytest.raises(ValidationError, match="set WINNOW_API_KEY"):
        Settings(host=host)
    assert Settings(host=host, api_key="sesame").host == host


def test_an_empty_key_is_no_key():
    with pytest.raises(ValidationError, match="empty"):
        Settings(api_key=" ")


def test_every_setting_is_an_environment_variable(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("WINNOW_DATA_DIR", "/somewhere")
    monkeypatch.setenv("WINNOW_LIMITS__TOP_K", "7")
    monkeypatch.setenv("WINNOW_PIPELINES", '{"mine": [{"stage": "bm25"}]}')
    settings = Settings()
    assert settings.data_dir == Path("/somewhere")
    assert settings.limits.top_k == 7
    assert settings.limits.body_bytes == 32 * 2**20
    assert settings.pipelines == {"mine": [{"stage": "bm25"}]}


def test_the_key_is_not_shown():
    assert "sesame" not in repr(Settings(api_key="sesame"))
