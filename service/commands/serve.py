"""`winnow serve`: the HTTP service, with the indexer beside it unless it runs elsewhere."""

import gc
import os
import socket
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from service.commands.common import DATA_DIR_HELP, ApiKey, CommandError, log_to_stderr, settings_from

if TYPE_CHECKING:
    import uvicorn

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
    Listening beyond this machine (--host 0.0.0.0) takes an API key: --api-key, or `winnow keys add`.
    """
    settings = settings_from(
        host=host, port=port, data_dir=data_dir, api_key=api_key, worker="external" if no_worker else None
    )
    log_to_stderr(settings)
    run_server(settings)


def run_server(settings: "Settings") -> None:
    """Serve until a signal says to stop."""
    server, listening = make_server(settings)
    run_until_stopped(server, listening)


def make_server(settings: "Settings") -> "tuple[uvicorn.Server, socket.socket]":
    """Return a server and the socket it will listen on; CommandError if there can be none."""
    from service.app import create_app
    from service.keys import KeyFileError
    from service.server import make

    make_data_dir(settings.data_dir)
    listening = listen(settings.host, settings.port)
    try:
        app = create_app(settings, warmed=freeze)
    except KeyFileError as error:
        raise CommandError(f"{error}; mend it, or move it away and make keys anew") from error
    # Without a configuration of its own uvicorn's loggers speak through ours, and ours has an access line.
    return make(app, log_config=None, log_level="warning"), listening


def freeze() -> None:
    """Leave out of garbage collection what is there now: modules and nets, which stay until the end.

    To look through them takes half a second, in which nobody is answered, every second under load.
    """
    gc.collect()
    gc.freeze()


def run_until_stopped(server: "uvicorn.Server", listening: socket.socket) -> None:
    """Serve in this thread. uvicorn stops in good order at Ctrl-C and then raises it again, to no use."""
    with suppress(KeyboardInterrupt):
        server.run(sockets=[listening])


def make_data_dir(path: Path) -> None:
    """Make the data directory, or say at once that documents could not be kept there."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CommandError(f"cannot use {path} for data: {error.strerror}") from error
    if not os.access(path, os.W_OK | os.X_OK):
        raise CommandError(f"cannot use {path} for data: it is not writable")


def listen(host: str, port: int) -> socket.socket:
    """Bind before anything is loaded, so that a taken port is said at once."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family)
    except OSError as error:
        raise CommandError(
            f"cannot listen on {host}:{port} ({error.strerror}); choose another --port"
        ) from error
