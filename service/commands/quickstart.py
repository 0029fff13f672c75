"""`winnow quickstart`, which `make run` calls: a service with something in it, from nothing.

Where no collection exists, the documentation of the Python packages installed here is indexed through the
service's own API while it already answers. How many documents were accepted is kept in a file until all
are, so a start that was interrupted goes on where it was; what was accepted is in the log and needs no help.
"""

import json
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, Any

from rich.console import Console

from service.commands.client import Client
from service.commands.common import (
    CommandError,
    log_to_stderr,
    print_error,
    progress_bar,
    settings_from,
    stderr,
)
from service.commands.serve import Directory, Host, Port, make_server, run_until_stopped
from service.commands.watch import Watch

if TYPE_CHECKING:
    import uvicorn

    from service.settings import Settings

COLLECTION = "python"
QUESTION = "merge sorted iterables without reading them into memory"
PATIENCE_SECONDS = 5.0  # for the feeding thread, after the service has stopped


def quickstart(host: Host = None, port: Port = None, data_dir: Directory = None) -> None:
    """Serve and, the first time, index the documentation of the installed Python packages."""
    settings = settings_from(host=host, port=port, data_dir=data_dir)
    log_to_stderr(settings, otherwise="warning")  # a progress bar has the terminal
    console = stderr()
    console.print("Starting Winnow …")
    server, listening = make_server(settings)
    address = f"http://{settings.host}:{listening.getsockname()[1]}"
    guide = Thread(target=_guide, args=(settings, server, address, console), daemon=True)
    guide.start()
    run_until_stopped(server, listening)
    guide.join(PATIENCE_SECONDS)


def _guide(settings: "Settings", server: "uvicorn.Server", address: str, console: Console) -> None:
    """Beside the server: wait until it is ready, fill it if that is to be done, and say what to try."""
    key = settings.api_key.get_secret_value() if settings.api_key else None
    try:
        with Client(address, key) as client:
            _wait_until_ready(client, server)
            console.print(f"Winnow answers at {address}")
            fill(client, settings.data_dir / "python-documents-sent", console)
            invitation = _invitation(client, address, needs_key=key is not None)
            console.print(invitation, soft_wrap=True, markup=False)
    except CommandError as error:
        if not server.should_exit:
            print_error(error)


def _wait_until_ready(client: Client, server: "uvicorn.Server") -> None:
    while not client.is_ready():
        if server.should_exit:
            raise CommandError("the service stopped before it was ready")
        time.sleep(0.1)


def fill(client: Client, sent_file: Path, console: Console) -> None:
    """Index the documentation if there is nothing yet, or go on with it; else show what is still underway."""
    names = {collection["name"] for collection in client.collections()}
    if not names or (sent_file.exists() and COLLECTION not in names):
        sent_file.parent.mkdir(parents=True, exist_ok=True)
        sent_file.write_text("0")
        client.ensure_collection(COLLECTION, {})
    unfinished = client.unfinished_jobs(COLLECTION)
    if not unfinished and not sent_file.exists():
        return
    console.print(
        "Indexing the documentation of the Python packages installed here; search answers meanwhile."
    )
    with progress_bar(console) as progress:
        watch = Watch(progress, client.job)
        for job in unfinished:
            watch.add(job["id"], job["total"])
        for job_id, documents in _send(client, sent_file):
            watch.add(job_id, documents)
        watch.wait()
        client.wait_until_shown(COLLECTION)


def _send(client: Client, sent_file: Path) -> Iterator[tuple[str, int]]:
    """Upload what has not been accepted yet; the file goes when everything is."""
    from indexer.python_docs import python_documents

    if not sent_file.exists():
        return
    sent = int(sent_file.read_text())
    for job, documents in client.upload(COLLECTION, islice(python_documents(), sent, None)):
        sent += documents
        sent_file.write_text(str(sent))
        yield job, documents
    sent_file.unlink()


def _invitation(client: Client, address: str, *, needs_key: bool) -> str:
    collections: list[dict[str, Any]] = client.collections()
    chosen = next((c for c in collections if c["name"] == COLLECTION), collections[0])
    key = ' -H "Authorization: Bearer $WINNOW_API_KEY"' if needs_key else ""
    body = json.dumps({"query": QUESTION, "top_k": 1})
    return (
        f"Collection {chosen['name']!r} has {chosen['documents']} documents. Ask it something:\n\n"
        f"  curl -s {address}/v1/collections/{chosen['name']}/search{key} "
        f"-H 'Content-Type: application/json' -d '{body}' | python3 -m json.tool\n\n"
        f"The contract is at {address}/openapi.json. Ctrl-C stops the service."
    )
