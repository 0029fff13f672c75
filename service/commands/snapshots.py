"""`winnow backup`, `restore` and `snapshots`: of a data directory, or by a running service."""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from service.commands.common import (
    DEFAULT_DATA_DIR,
    ApiKey,
    Collection,
    CommandError,
    DataDir,
    Json,
    Url,
    progress_bar,
    readable_bytes,
    settings_from,
    stderr,
)

if TYPE_CHECKING:
    from indexer.repository import Repository

RepositoryName = Annotated[
    str, typer.Option("--repository", "-r", help="One of WINNOW_REPOSITORIES, where the service runs.")
]
Name = Annotated[str, typer.Argument(help="Name of the backup.")]


def backup(
    collection: Collection,
    repository: RepositoryName,
    name: Annotated[str | None, typer.Option(help="Of the backup.", show_default="the time")] = None,
    keep: Annotated[
        int | None, typer.Option(min=1, help="Remove all but so many, the newest.", show_default="all stay")
    ] = None,
    data_dir: DataDir = DEFAULT_DATA_DIR,
    url: Url = None,
    api_key: ApiKey = None,
    as_json: Json = False,
) -> None:
    """Copy what can be searched of a collection into a repository; what waits to be indexed is left out."""
    if url is not None:
        from service.commands.client import Client

        request = {"repository": repository, "name": name, "keep": keep}
        with Client(url, api_key) as client, stderr().status("copying …"):
            made = client.back_up(collection, {field: value for field, value in request.items() if value})
    else:
        from indexer.backup import back_up
        from service.backups import made_view

        with _opened(data_dir, repository) as opened, _bar() as report:
            made = dict(made_view(back_up(opened, data_dir, collection, name, keep, report)))
    if as_json:
        typer.echo(json.dumps(made, ensure_ascii=False))
        return
    copied, size = readable_bytes(made["copied_bytes"]), readable_bytes(made["bytes"])
    stderr().print(f"{made['name']}: {made['documents']} documents, {size}, of which {copied} were copied.")
    for gone in made["removed"]:
        stderr().print(f"{gone} was removed.")


def restore(
    name: Name,
    collection: Collection,
    repository: RepositoryName,
    into: Annotated[
        str | None,
        typer.Option(help="Collection to make or replace.", show_default="the one that was backed up"),
    ] = None,
    data_dir: DataDir = DEFAULT_DATA_DIR,
    url: Url = None,
    api_key: ApiKey = None,
) -> None:
    """Make a collection of a backup, in place of one of that name if there is one.

    Every file is checked first. Searches go on meanwhile; a worker lets go of the collection by itself.
    """
    target = into or collection
    if url is not None:
        from service.commands.client import Client

        with Client(url, api_key) as client, stderr().status("copying …"):
            client.restore(collection, name, {"repository": repository, "into": target})
    else:
        from indexer.backup import Backups
        from indexer.restore import restore as restore_here

        with _opened(data_dir, repository) as opened, _bar() as report:
            restore_here(opened, data_dir, Backups(opened, collection).find(name), target, report)
    stderr().print(f"Collection {target!r} is as it was in {name}.")


def snapshots(
    collection: Collection,
    repository: RepositoryName,
    remove: Annotated[
        str | None, typer.Option(help="Remove this backup, and show the others.", show_default="none")
    ] = None,
    data_dir: DataDir = DEFAULT_DATA_DIR,
    url: Url = None,
    api_key: ApiKey = None,
    as_json: Json = False,
) -> None:
    """List the backups of a collection, which need not be there any more."""
    if url is not None:
        from service.commands.client import Client

        with Client(url, api_key) as client:
            if remove is not None:
                client.remove_snapshot(collection, remove, repository)
            found = client.snapshots(collection, repository)
    else:
        found = _listed(data_dir, collection, repository, remove)
    if as_json:
        typer.echo(json.dumps(found, ensure_ascii=False))
    else:
        _show(found)


def _listed(data_dir: Path, collection: str, repository: str, remove: str | None) -> dict[str, Any]:
    from indexer.backup import Backups, forget
    from service.backups import list_view

    with _opened(data_dir, repository) as opened:
        if remove is not None:
            forget(opened, data_dir, collection, remove)
        return dict(list_view(*Backups(opened, collection).listing()))


@contextmanager
def _opened(data_dir: Path, name: str) -> "Iterator[Repository]":
    """The repository of this name; what goes wrong with a backup is a CommandError."""
    from indexer.backup import BackupExists, BackupMissing, BadName
    from indexer.collection import CollectionExists, CollectionMissing
    from indexer.segment.arrays import CorruptFile
    from indexer.workplace import Busy
    from service.errors import ServiceError
    from service.repositories import Repositories

    settings = settings_from(data_dir=data_dir, host="127.0.0.1")
    states = (BackupExists, BackupMissing, BadName, Busy, CollectionExists, CollectionMissing)
    try:
        yield Repositories(settings.repositories).open(name)
    except ServiceError as error:
        raise CommandError(error.detail) from error
    except (*states, CorruptFile, OSError) as error:
        raise CommandError(str(error)) from error


@contextmanager
def _bar() -> Iterator[Callable[[int, int], None]]:
    """A bar of files."""
    with progress_bar() as progress:
        bar = progress.add_task("copying files", total=None)
        yield lambda done, total: progress.update(bar, completed=done, total=total)


def _show(found: dict[str, Any]) -> None:
    console = Console(highlight=False)
    table = Table("name", "made (UTC)", "generation", "documents", "bytes")
    for each in found["snapshots"]:
        made = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(each["created"]))
        numbers = (str(each["generation"]), str(each["documents"]), readable_bytes(each["bytes"]))
        table.add_row(each["name"], made, *numbers)
    console.print(table if found["snapshots"] else "There are no backups.")
    for each in found["damaged"]:
        console.print(f"[red]damaged:[/red] {each['detail']}", soft_wrap=True)
