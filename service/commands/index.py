"""`winnow index`: documents from files into a collection of a data directory or of a running service."""

from pathlib import Path
from typing import Annotated, Any

import typer

from service.commands.common import (
    DEFAULT_DATA_DIR,
    ApiKey,
    Collection,
    DataDir,
    Language,
    Schema,
    Url,
    progress_bar,
    read_schema,
    stderr,
)

Source = Annotated[
    Path,
    typer.Argument(help="A BEIR folder, a .jsonl or .ndjson file (.gz too), or a folder of .txt and .md."),
]


def index(
    source: Source,
    collection: Collection,
    data_dir: DataDir = DEFAULT_DATA_DIR,
    url: Url = None,
    api_key: ApiKey = None,
    language: Language = None,
    schema: Schema = "{}",
) -> None:
    """Index documents, replacing those of the same id. A collection that is not there yet is created."""
    from indexer.sources import count_documents

    given = read_schema(schema, language)
    total = count_documents(source)
    if url is not None:
        _through_service(source, total, collection, url, api_key, given)
    else:
        from service.commands.local import index_locally

        index_locally(data_dir, source, total, collection, given)
    stderr().print(f"{total} documents are in collection {collection!r}.")


def _through_service(
    source: Path, total: int, collection: str, url: str, api_key: str | None, schema: dict[str, Any]
) -> None:
    from indexer.sources import read_documents
    from service.commands.client import Client
    from service.commands.watch import Watch

    with Client(url, api_key) as client, progress_bar() as progress:
        client.ensure_collection(collection, schema)
        watch = Watch(progress, client.job, total)
        for job, documents in client.upload(collection, read_documents(source)):
            watch.add(job, documents)
        watch.wait()
        client.wait_until_shown(collection)
