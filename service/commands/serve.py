"""`winnow serve`: the HTTP service, with the indexer beside it unless it runs elsewhere."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from service.commands.common import DATA_DIR_HELP, ApiKey, log_to_stderr, settings_from

if TYPE_CHECKING:
    from service.settings import Settings

Host = Annotated[
    str | None, typer.Option(envvar="WINNOW_HOST", help="Address to listen on.", show_default="127.0.0.1")
]
Port = Annotated[
    int | None, typer.Option(envvar="WINNOW_PORT", help="Port to listen on.", show_default="8080")
]
Directory = Annotated[
    Path | None, typer.Option("--data-dir", envvar="WINNOW_DATA_DIR", help=DATA_DIR_HELP, show_default="data")
]


def serve(
    host: Host = None,
    port: Port = None,
    data_dir: Directory = None,
    api_key: ApiKey = None,
    no_worker: Annotated[
        bool, typer.Option("--no-worker", help="The indexer runs elsewhere: start `winnow worker` there.")
    ] = False,
) -> None:
    """Serve collections over HTTP, indexing what is sent to them.

    Every setting is also an environment variable, WINNOW_PORT for example.
    Listening beyond this machine (--host 0.0.0.0) takes an API key.
    """
    settings = settings_from(
        host=host, port=port, data_dir=data_dir, api_key=api_key, worker="external" if no_worker else None
    )
    log_to_stderr()
    run_server(settings)


def run_server(settings: "Settings") -> None:
    """Serve until a signal says to stop."""
    import uvicorn

    from service.app import create_app

    uvicorn.run(create_app(settings), host=settings.host, port=settings.port, log_level="warning")
