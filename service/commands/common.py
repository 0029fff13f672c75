"""What several commands share: their options, their environment, and how they say that something is wrong."""

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

if TYPE_CHECKING:
    from service.settings import Settings

DATA_DIR_HELP = "Where collections and caches live."

DataDir = Annotated[Path, typer.Option("--data-dir", envvar="WINNOW_DATA_DIR", help=DATA_DIR_HELP)]
Collection = Annotated[str, typer.Option("--collection", "-c", help="Name of the collection.")]
Url = Annotated[
    str | None, typer.Option("--url", help="A running service, in place of --data-dir.", show_default="none")
]
ApiKey = Annotated[
    str | None,
    typer.Option("--api-key", envvar="WINNOW_API_KEY", help="Key of that service.", show_envvar=True),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON and nothing else on standard output.")]
Language = Annotated[
    str | None,
    typer.Option("--language", help="Of a new collection's texts: de, zh, none …", show_default="en"),
]
Schema = Annotated[
    str,
    typer.Option("--schema", help="How a new collection is indexed, as JSON: '{\"passage_tokens\": 200}'."),
]

DEFAULT_DATA_DIR = Path("data")


class CommandError(Exception):
    """Something the user can do something about; the message is what is printed, and the exit code is 1."""


def settings_from(**given: Any) -> "Settings":
    """Return the settings of the environment, changed by what the command line gave (None: nothing).

    Also prepares the process: see `prepare_environment`.
    """
    from pydantic import ValidationError

    from service.settings import Settings

    try:
        settings = Settings(**{name: value for name, value in given.items() if value is not None})
    except ValidationError as error:
        details = "; ".join(_sentence(detail["loc"], detail["msg"]) for detail in error.errors())
        raise typer.BadParameter(details) from error
    prepare_environment(
        settings.data_dir / "cache", (*settings.default_encoders().values(), *settings.encoders)
    )
    return settings


def prepare_environment(cache: Path, encoders: tuple[str, ...] = ()) -> None:
    """Say to libraries, before they are imported, what they read from the environment when they are.

    Compiled kernels are kept in `cache`, so that a second start compiles nothing, each version of their
    sources in a folder of its own, since numba looks only at the file of the function that is called. The
    model hub is not asked unless an `hf:` name needs it: a lookup there stalls a start without network.
    OpenMP's threads sleep between two forwards: where service and indexer share cores, busy waiting took a
    question's encoding from 11 ms to 50 and more, and indexing to a quarter of its speed.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("NUMBA_CACHE_DIR", str(cache.absolute() / "numba" / kernel_version()))
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    if not any(name.startswith("hf:") for name in encoders):
        os.environ.setdefault("HF_HUB_OFFLINE", "1")


def kernel_version() -> str:
    """Sixteen hex digits that change with any source of the kernels."""
    sources = Path(__file__).parents[2] / "indexer" / "kernels"
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in sorted(sources.glob("*.py"))))
    return digest.hexdigest()[:16]


def read_schema(raw: str, language: str | None) -> dict[str, Any]:
    """Return the JSON object that `--schema` gives, with `--language` if that is given."""
    try:
        schema = json.loads(raw)
    except ValueError as error:
        raise typer.BadParameter(f"--schema is not JSON: {error}") from error
    if not isinstance(schema, dict):
        raise typer.BadParameter("--schema must be a JSON object")
    return schema if language is None else {**schema, "language": language}


def log_to_stderr(settings: "Settings", otherwise: str = "info") -> None:
    """Show what the service and the indexer have to say: of the level that is set, or of this one."""
    from service.log_lines import to_stderr

    to_stderr(settings.log_format, settings.log_level or otherwise)


def stderr() -> Console:
    """Where progress and remarks go: standard output is for results."""
    return Console(stderr=True, highlight=False)


def print_error(error: Exception) -> None:
    """Print one sentence to standard error, whatever brackets it holds."""
    stderr().print(Text.assemble(("Error: ", "red"), str(error)), soft_wrap=True)


@contextmanager
def progress_bar(console: Console | None = None) -> Iterator[Progress]:
    """Show a bar with counts and times on standard error, as long as the context lasts."""
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console or stderr()) as progress:
        yield progress


def readable_bytes(size: float) -> str:
    """Return so many bytes with a unit: 999 B, 1.5 kB."""
    for unit in ("B", "kB", "MB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} GB"


def _sentence(location: tuple[int | str, ...], message: str) -> str:
    message = message.removeprefix("Value error, ")
    return f"WINNOW_{'__'.join(str(part) for part in location).upper()}: {message}" if location else message
