"""`winnow index`: documents from files into a collection of a data directory or of a running service."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from service.commands.common import (
    DEFAULT_DATA_DIR,
    ApiKey,
    Collection,
    CommandError,
    DataDir,
    Url,
    progress_bar,
    stderr,
)

Source = Annotated[
    Path,
    typer.Argument(help="A BEIR folder, a .jsonl or .ndjson file (.gz too), or a folder of .txt and .md."),
]
Schema = Annotated[
    str, typer.Option("--schema", help='How a new collection is indexed, as JSON: \'{"language": "de"}\'.')
]


def index(
    source: Source,
    collection: Collection,
    data_dir: DataDir = DEFAULT_DATA_DIR,
    url: Url = None,
    api_key: ApiKey = None,
    schema: Schema = "{}",
) -> None:
    """Index documents, replacing those of the same id. A collection that is not there yet is created."""
    from indexer.sources import SourceError, count_documents

    try:
        total = count_documents(source)
        if url is not None:
            _through_service(source, total, collection, url, api_key, read_schema(schema))
        else:
            from service.commands.local import index_locally

            index_locally(data_dir, source, total, collection, read_schema(schema))
    except SourceError as error:
        raise CommandError(str(error)) from error
    stderr().print(f"{total} documents are in collection {collection!r}.")


def read_schema(raw: str) -> dict[str, Any]:
    """Return the JSON object given on the command line."""
    try:
        schema = json.loads(raw)
    except ValueError as error:
        raise typer.BadParameter(f"--schema is not JSON: {error}") from error
    if not isinstance(schema, dict):
        raise typer.BadParameter("--schema must be a JSON object")
    return schema


def _through_service(
    source: Path, total: int, collection: str, url: str, api_key: str | None, schema: dict[str, Any]
) -> None:
    from indexer.sources import read_documents
    from service.commands.client import Client
    from service.commands.watch import Watch

    client = Client(url, api_key)
    client.ensure_collection(collection, schema)
    with progress_bar() as progress:
        watch = Watch(progress, client.job, total)
        for job, documents in client.upload(collection, read_documents(source)):
            watch.add(job, documents)
        watch.wait()
