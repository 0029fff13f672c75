"""Working on a data directory without a service: the parts of one, put together in this process."""

import asyncio
import uuid
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import asynccontextmanager
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError
from rich.progress import Progress

from indexer.collection import (
    CollectionExists,
    CollectionSchema,
    collection_path,
    create_collection,
    log_path,
)
from indexer.document import Document
from indexer.encoders import LoadEncoder as LoadDocumentEncoder
from indexer.encoders import WrongEncoder
from indexer.filters import FilterError
from indexer.lock import Locked
from indexer.queue.contract import upsert
from indexer.queue.sqlite import SqliteLog
from indexer.segment.arrays import CorruptFile
from indexer.segment.manifest import read_current
from indexer.sources import read_documents
from indexer.worker import drain
from models.load import WeightsMissing
from service.commands.common import CommandError, progress_bar, settings_from, stderr
from service.commands.watch import JobState, Watch
from service.engine import Engine
from service.errors import ServiceError, as_service_error
from service.metrics import Metrics
from service.nets import DenseNets, LoadEncoder
from service.schema import SearchRequest, SearchResponse
from service.settings import Settings
from service.snapshot import Snapshot
from service.workers import Workers

if TYPE_CHECKING:
    from models.dense import DenseEncoder

BATCH_DOCUMENTS = 500


def ensure_collection(root: Path, name: str, schema: dict[str, Any]) -> Path:
    """Return the directory of a collection, created by this schema unless it is there."""
    try:
        return create_collection(root, name, CollectionSchema.model_validate(schema))
    except CollectionExists:
        return collection_path(root, name)
    except ValidationError as error:
        details = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise CommandError(f"--schema will not do: {details}") from error
    except ValueError as error:
        raise CommandError(str(error)) from error


def index_documents(
    root: Path,
    name: str,
    documents: Iterable[Document],
    total: int,
    load: LoadDocumentEncoder,
    progress: Progress,
) -> None:
    """Append documents to a collection's log, then apply it here or, if a worker has the collection, wait."""
    log = SqliteLog(log_path(collection_path(root, name)))
    try:
        watch = Watch(progress, lambda job: _state(log, job), total)
        job = uuid.uuid4().hex
        for batch in _batches(documents):
            log.append([upsert(document) for document in batch], job)
            watch.add(job, len(batch))
        _apply(root, name, load, watch)
        watch.wait()
    finally:
        log.close()


def open_snapshot(root: Path, name: str) -> Snapshot:
    """Open the current generation of a collection."""
    try:
        directory = collection_path(root, name)
        return Snapshot.open(directory, read_current(directory))
    except ValueError as error:
        raise CommandError(str(error)) from error
    except FileNotFoundError as error:
        raise CommandError(f"there is no collection {name!r} in {root}") from error


@asynccontextmanager
async def engine_here(settings: Settings, load: LoadEncoder) -> AsyncIterator[Engine]:
    """Make the engine that answers HTTP, without HTTP."""
    workers = Workers(settings.threads)
    metrics = Metrics()
    nets = DenseNets(settings, workers, load, metrics)
    try:
        yield Engine(settings, nets, workers, metrics)
    finally:
        await nets.stop()
        workers.close()


async def ask(engine: Engine, snapshot: Snapshot, request: SearchRequest) -> SearchResponse:
    """Search; what is wrong with the request becomes a CommandError."""
    try:
        return await engine.search(snapshot, request)
    except (ServiceError, FilterError) as error:
        raise CommandError(as_service_error(error).detail) from error


def dense_loader(cache: Path) -> Callable[[str], "DenseEncoder"]:
    """How encoders are loaded here: weights that are missing or unfit are a CommandError."""

    def load(name: str) -> "DenseEncoder":
        from models.dense import DenseEncoder

        try:
            return DenseEncoder.load(name, cache=cache)
        except (WeightsMissing, ValueError) as error:
            raise CommandError(str(error)) from error

    return load


def index_locally(data_dir: Path, source: Path, total: int, name: str, schema: dict[str, Any]) -> None:
    """`winnow index` without a service."""
    settings = settings_from(data_dir=data_dir, host="127.0.0.1")
    ensure_collection(data_dir, name, {"encoder": settings.encoder, **schema})
    load = dense_loader(data_dir / "cache" / "models")
    with progress_bar() as progress:
        index_documents(data_dir, name, read_documents(source), total, load, progress)


def search_locally(data_dir: Path, name: str, request: dict[str, Any]) -> dict[str, Any]:
    """`winnow search` without a service."""
    settings = settings_from(data_dir=data_dir, host="127.0.0.1")
    snapshot = open_snapshot(data_dir, name)

    async def answer() -> SearchResponse:
        async with engine_here(settings, dense_loader(data_dir / "cache" / "models")) as engine:
            return await ask(engine, snapshot, SearchRequest(**request))

    return dict(asyncio.run(answer()))


def _apply(root: Path, name: str, load: LoadDocumentEncoder, watch: Watch) -> None:
    try:
        drain(root, name, load, lambda *_: watch.update())
    except Locked:
        stderr().print("A worker has this collection; it will index what was written. Waiting …")
    except (WrongEncoder, CorruptFile) as error:
        raise CommandError(str(error)) from error


def _state(log: SqliteLog, job: str) -> JobState | None:
    found = log.job(job)
    return None if found is None else asdict(found)


def _batches(documents: Iterable[Document]) -> Iterator[list[Document]]:
    remaining = iter(documents)
    while batch := list(islice(remaining, BATCH_DOCUMENTS)):
        yield batch
