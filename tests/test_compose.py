"""The compose file says what the code and the image can do. No container is run here."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.main import get_command

from service.cli import app
from service.settings import Settings

ROOT = Path(__file__).parent.parent
COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
CONTAINERS: dict[str, dict[str, Any]] = COMPOSE["services"]
WINNOW = {name: each for name, each in CONTAINERS.items() if each["image"] == "winnow"}
DOCKERFILE = (ROOT / "Dockerfile").read_text()
IMAGE = dict(re.findall(r"(WINNOW_\w+)=(\S+)", DOCKERFILE))


def test_the_parts_are_containers_of_their_own():
    assert set(WINNOW) == {"service", "worker"}
    assert set(CONTAINERS) - set(WINNOW) == {"redis"}


@pytest.mark.parametrize("name", sorted(WINNOW))
def test_the_environment_is_settings_that_are_taken(name: str, monkeypatch: pytest.MonkeyPatch):
    given = {key: text for key, text in CONTAINERS[name]["environment"].items() if key.startswith("WINNOW_")}
    for key, text in {**IMAGE, **given}.items():
        monkeypatch.setenv(key, re.sub(r"\$\{.*\}", "a-key", text))
    settings = Settings()
    assert set(given) <= {f"WINNOW_{field.upper()}" for field in settings.model_fields_set}
    assert settings.redis_url is not None
    assert settings.redis_url.get_secret_value() == "redis://redis:6379/0"


@pytest.mark.parametrize("name", sorted(WINNOW))
def test_there_is_no_start_without_a_key(name: str):
    assert re.match(r"\$\{WINNOW_API_KEY:\?.+\}$", CONTAINERS[name]["environment"]["WINNOW_API_KEY"])


@pytest.mark.parametrize("name", sorted(WINNOW))
def test_commands_are_those_of_the_command_line(name: str):
    called, *arguments = CONTAINERS[name]["command"]
    command = get_command(app).commands[called]
    command.make_context(called, arguments)  # or a UsageError


def test_the_service_is_published_where_it_listens_and_nothing_else_is():
    published = {name: each["ports"] for name, each in CONTAINERS.items() if "ports" in each}
    assert published == {"service": [f"${{PUBLISH:-127.0.0.1:8080}}:{IMAGE['WINNOW_PORT']}"]}
    assert re.findall(r"^EXPOSE (\d+)$", DOCKERFILE, re.MULTILINE) == [IMAGE["WINNOW_PORT"]]


@pytest.mark.parametrize("name", sorted(WINNOW))
def test_data_lie_on_one_volume(name: str):
    assert CONTAINERS[name]["volumes"] == [f"data:{IMAGE['WINNOW_DATA_DIR']}"]
    assert re.findall(r"^VOLUME (\S+)$", DOCKERFILE, re.MULTILINE) == [IMAGE["WINNOW_DATA_DIR"]]
    assert set(COMPOSE["volumes"]) == {"data", "redis"}


@pytest.mark.parametrize("name", sorted(CONTAINERS))
def test_a_container_has_no_rights_that_it_does_not_need(name: str):
    container = CONTAINERS[name]
    assert container["read_only"]
    assert container["cap_drop"] == ["ALL"]
    assert container["security_opt"] == ["no-new-privileges:true"]
    user = container.get("user") or re.findall(r"^USER (\S+)$", DOCKERFILE, re.MULTILINE)[-1]
    assert user not in ("root", "0")


@pytest.mark.parametrize("name", sorted(WINNOW))
def test_winnow_waits_for_redis(name: str):
    assert CONTAINERS[name]["depends_on"] == {"redis": {"condition": "service_healthy"}}


def test_redis_keeps_what_it_acknowledged_and_is_of_a_version_that_is_named():
    program, *flags = CONTAINERS["redis"]["command"]
    options = dict(zip(flags[::2], flags[1::2], strict=True))
    assert program == "redis-server"
    assert options == {
        "--appendonly": "yes",
        "--appendfsync": "always",
        "--save": "",
        "--maxmemory-policy": "noeviction",
    }
    assert CONTAINERS["redis"]["volumes"] == ["redis:/data"]
    assert re.fullmatch(r"redis:\d+\.\d+\S*", CONTAINERS["redis"]["image"])


def test_several_of_each_can_be_started():
    """Names and ports of containers would be taken by the first."""
    assert all("container_name" not in each for each in CONTAINERS.values())
    shown = (ROOT / "deploy" / "README.md").read_text()
    assert "PUBLISH=127.0.0.1:8080-8089 docker compose up --scale service=2 --scale worker=2" in shown
