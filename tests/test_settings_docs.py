"""docs/settings.md says what the code does: every setting, its default and its option, and no others."""

import json
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import click
import pytest
from pydantic import BaseModel
from typer.main import get_command

from service.cli import app
from service.settings import Limits, Settings

ROOT = Path(__file__).parent.parent
DOCUMENTED = (ROOT / "docs" / "settings.md").read_text()
UNITS = {"KiB": 2**10, "MiB": 2**20, "GiB": 2**30}

Rows = dict[str, tuple[str, str]]


def rows(text: str) -> Rows:
    """Name -> default and description, of the tables in a text."""
    found = re.findall(r"^\| `(\w+)` \| (.*?) \| (.*) \|$", text, re.MULTILINE)
    assert len(found) == len({name for name, *_ in found}), "a name has one row"
    return {name: (default, said) for name, default, said in found}


VARIABLES, LIMITS = map(rows, DOCUMENTED.split("\n## Limits\n"))


def value(cell: str) -> Any:
    """What a default is, from how it is written: `8080`, 10,000, 32 MiB, `[]`, `winnow:late`, none."""
    text = cell.strip("`")
    if number := re.fullmatch(r"([\d,]+)( [KMG]iB)?", text):
        return int(number[1].replace(",", "")) * UNITS.get(str(number[2]).strip(), 1)
    if cell == text:
        return None  # a word for what happens: none, measured, cores
    with suppress(ValueError):
        return json.loads(text)
    return text


def default(model: type[BaseModel], name: str) -> Any:
    """The code's default, as JSON has it."""
    return json.loads(
        json.dumps(model.model_fields[name].get_default(call_default_factory=True), default=str)
    )


def commands(group: Any) -> Iterator[tuple[str, click.Parameter]]:
    """Every parameter of every command."""
    for command in group.commands.values():
        yield from ((command.name, parameter) for parameter in command.params)
        if hasattr(command, "commands"):
            yield from commands(command)


OPTIONS = [(name, option) for name, option in commands(get_command(app)) if option.envvar]


def test_only_limits_are_nested():
    assert [name for name, value in Settings() if isinstance(value, BaseModel)] == ["limits"]


def test_settings_and_their_rows_are_the_same():
    assert set(VARIABLES) == {f"WINNOW_{name.upper()}" for name in Settings.model_fields} - {"WINNOW_LIMITS"}
    assert set(LIMITS) == set(Limits.model_fields)


@pytest.mark.parametrize("name", sorted(set(Settings.model_fields) - {"limits"}))
def test_the_default_of_a_setting_is_as_documented(name: str):
    assert value(VARIABLES[f"WINNOW_{name.upper()}"][0]) == default(Settings, name)


@pytest.mark.parametrize("name", sorted(Limits.model_fields))
def test_the_default_of_a_limit_is_as_documented(name: str):
    assert value(LIMITS[name][0]) == default(Limits, name)


@pytest.mark.parametrize("name", sorted(Limits.model_fields))
def test_a_limit_is_set_as_documented(name: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv(f"WINNOW_LIMITS__{name.upper()}", "7")
    assert getattr(Settings().limits, name) == 7


@pytest.mark.parametrize("name", sorted(set(Settings.model_fields) - {"limits"}))
def test_a_setting_says_what_it_is(name: str):
    assert Settings.model_fields[name].description


@pytest.mark.parametrize(("command", "option"), OPTIONS, ids=lambda each: getattr(each, "name", each))
def test_an_option_that_is_a_setting_stands_in_its_row(command: str, option: click.Parameter):
    assert f"`{option.opts[0]}`" in VARIABLES[str(option.envvar)][1]


def test_options_of_the_service_are_settings():
    (serve,) = [command for name, command in get_command(app).commands.items() if name == "serve"]
    options = {parameter.opts[0] for parameter in serve.params}
    documented = {option for _, said in VARIABLES.values() for option in re.findall(r"`(--[a-z-]+)`", said)}
    assert options <= documented


def test_no_other_settings_are_spoken_of_anywhere():
    known = {*VARIABLES, *(f"WINNOW_LIMITS__{name.upper()}" for name in LIMITS), "WINNOW_LIMITS__NAME"}
    files = [
        ROOT / name for name in ("docker-compose.yml", "Dockerfile", "Makefile", "README.md", "CHANGELOG.md")
    ]
    for folder, kind in {
        "docs": "md",
        "deploy": "*",
        "service": "py",
        "indexer": "py",
        "models": "py",
    }.items():
        files += (ROOT / folder).rglob(f"*.{kind}")
    spoken = {(path.name, name) for path in files for name in re.findall(r"WINNOW_\w+", path.read_text())}
    assert {(path, name) for path, name in spoken if name not in known} == set()
