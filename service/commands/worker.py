"""`winnow worker`: the indexer, as a process of its own."""

from typing import Annotated

import typer

from service.commands.common import DEFAULT_DATA_DIR, CommandError, DataDir, log_to_stderr, settings_from


def worker(
    data_dir: DataDir = DEFAULT_DATA_DIR,
    embedded: Annotated[
        bool, typer.Option("--embedded", help="Stop when standard input ends: a service started this worker.")
    ] = False,
) -> None:
    """Apply what is written to the collections in a data directory; one worker at a time has a collection.

    With WINNOW_REDIS_URL several workers share the collections of one data directory.
    """
    settings = settings_from(data_dir=data_dir, host="127.0.0.1")  # it listens nowhere, so it needs no key
    log_to_stderr(settings, otherwise="warning" if embedded else "info")

    from indexer.lock import Locked
    from indexer.queue.logs import Logs
    from indexer.worker import run_worker
    from service.commands.worker_metrics import shown_at

    observer = shown_at(settings.worker_metrics) if settings.worker_metrics else None
    try:
        run_worker(settings.data_dir, logs=Logs(settings.redis()), parent_pipe=embedded, observer=observer)
    except Locked as error:
        raise CommandError(str(error)) from error
