"""`winnow keys`: who may do what. A running service takes a change over with its next request."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from service.commands.common import DATA_DIR_HELP, CommandError, stderr

if TYPE_CHECKING:
    from service.keys import Key

app = typer.Typer(name="keys", help="Make, list and remove API keys with scopes.", no_args_is_help=True)

Directory = Annotated[
    Path | None, typer.Option("--data-dir", envvar="WINNOW_DATA_DIR", help=DATA_DIR_HELP, show_default="data")
]
File = Annotated[
    Path | None,
    typer.Option(
        "--keys-file", envvar="WINNOW_KEYS_FILE", help="The file of keys.", show_default="keys.json there"
    ),
]
Name = Annotated[str, typer.Argument(help="What the key is called, where it is listed and refused.")]


@app.command()
def add(
    name: Name,
    scope: Annotated[
        list[str], typer.Option("--scope", help="read, write or admin; give each it is to have.")
    ],
    rate: Annotated[
        str | None,
        typer.Option("--rate", help="Requests in a time: 600/minute.", show_default="WINNOW_RATE"),
    ] = None,
    data_dir: Directory = None,
    keys_file: File = None,
) -> None:
    """Make a key and print it. Only its hash is kept, so this is the only time it is seen."""
    from pydantic import ValidationError

    from service.keys import new_key
    from service.scopes import SCOPES

    scopes = [known for known in SCOPES if known in scope]
    if unknown := set(scope) - set(SCOPES):
        raise typer.BadParameter(f"there is no scope {min(unknown)!r}: give {', '.join(SCOPES)}")
    try:
        secret, key = new_key(name, scopes, rate)
    except ValidationError as error:
        first = error.errors()[0]
        raise typer.BadParameter(f"{first['loc'][0]}: {first['msg']}") from error
    path = _path(data_dir, keys_file)
    _change(path, lambda keys: _with(keys, key))
    stderr().print(f"The key {name!r} is in {path}. It is shown this once:", soft_wrap=True)
    typer.echo(secret)


@app.command("list")
def list_keys(data_dir: Directory = None, keys_file: File = None) -> None:
    """Show names, scopes, rates and when they were made."""
    from service.keys import KeyFileError, read_keys

    path = _path(data_dir, keys_file)
    try:
        keys = read_keys(path)
    except FileNotFoundError:
        raise CommandError(f"there is no {path}; make a key by `winnow keys add`") from None
    except KeyFileError as error:
        raise CommandError(str(error)) from error
    table = Table("name", "scopes", "rate", "created")
    for key in keys:
        created = key.created.strftime("%Y-%m-%d %H:%M UTC")
        table.add_row(key.name, ", ".join(key.scopes), key.rate or "", created)
    Console(highlight=False).print(table)


@app.command()
def remove(name: Name, data_dir: Directory = None, keys_file: File = None) -> None:
    """Remove a key: whoever has it is refused from the next request on."""
    path = _path(data_dir, keys_file)
    _change(path, lambda keys: _without(keys, name, path))
    stderr().print(f"The key {name!r} is no longer in {path}.", soft_wrap=True)


def _with(keys: "Sequence[Key]", key: "Key") -> "list[Key]":
    if key.name in {known.name for known in keys}:
        raise CommandError(f"there is a key {key.name!r} already: choose another name, or remove that one")
    return [*keys, key]


def _without(keys: "Sequence[Key]", name: str, path: Path) -> "list[Key]":
    left = [key for key in keys if key.name != name]
    if len(left) == len(keys):
        raise CommandError(f"there is no key {name!r} in {path}")
    return left


def _change(path: Path, change: "Callable[[tuple[Key, ...]], Sequence[Key]]") -> None:
    from service.keys import KeyFileError, change_keys

    try:
        change_keys(path, change)
    except (KeyFileError, OSError) as error:
        raise CommandError(str(error)) from error


def _path(data_dir: Path | None, keys_file: Path | None) -> Path:
    from service.commands.common import settings_from

    return settings_from(data_dir=data_dir, keys_file=keys_file).keys_path()
