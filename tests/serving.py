"""A service behind a real socket, for what only a socket shows: half a body, a hang-up, a lying length."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import uvicorn

from indexer.worker import Worker
from models.roles import Load
from service import server as winnow_server
from service.app import create_app
from service.settings import Settings
from service.state import State
from tests.nets import word_overlap


@contextmanager
def serving(
    directory: Path, load: Load | None = word_overlap, **settings: Any
) -> Iterator[tuple[str, State]]:
    """Serve on a free port in a thread; gives the address and the application's parts.

    `load` gives its encoders; None loads them from their weights. Caches are off.
    """
    caches = {"result_cache_bytes": 0, "encoding_cache_bytes": 0}
    given = {"worker": "external", "watch_seconds": 0.01, **caches, **settings}
    app = create_app(Settings(data_dir=directory, **given), load=load)
    server = winnow_server.make(app, port=0, log_level="error")
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        yield f"http://127.0.0.1:{_port(server)}", app.state.winnow
    finally:
        server.should_exit = True
        thread.join()


@contextmanager
def indexing(directory: Path, load: Load = word_overlap) -> Iterator[None]:
    """Index what is written to a service on `directory`, in a thread, as long as the context lasts."""
    stop = threading.Event()

    def work() -> None:
        worker = Worker(directory, load)
        while not stop.is_set():
            if not worker.turn():
                stop.wait(0.02)
        worker.close()

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def _port(server: uvicorn.Server) -> int:
    until = time.monotonic() + 30
    while not server.started:
        assert time.monotonic() < until, "the server did not start"
        time.sleep(0.01)
    port: int = server.servers[0].sockets[0].getsockname()[1]
    return port
