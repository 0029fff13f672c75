"""Working on a data directory without a service: the parts of one, put together in this process."""

import asyncio
import uuid
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import asdict
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from rich.progress import Progress

from indexer.collection import (
    CollectionExists,
    CollectionSchema,
    collection_path,
    create_collection,
)
from indexer.document import Document
from indexer.encoders import WrongEncoder
from indexer.filters import FilterError
from indexer.kernels import warm
from indexer.lock import Locked
from indexer.queue.contract import Log, upsert
from indexer.queue.logs import Logs
from indexer.segment.arrays import CorruptFile
from indexer.segment.manifest import read_current
from indexer.sources import read_documents
from indexer.worker import drain
from models.load import WeightsMissing
from models.roles import Load, Loaded, Role, loader
from service.commands.common import CommandError, progress_bar, settings_from, stderr
from service.commands.estimate import announce_keys
from service.commands.watch import JobState, Watch
from service.engine import Engine
from service.errors import EncoderError, ServiceError, as_service_error
from service.idf import IdfTables
from service.metrics import Metrics
from service.nets import Nets
from service.schema.search import SearchRequest, SearchResponse
from service.settings import Settings
from service.snapshot import Snapshot
from service.turns import Turns
from service.workers import Workers

BATCH_DOCUMENTS = 500


def ensure_collection(name: str, schema: dict[str, Any], settings: Settings) -> Path:
    """Return the directory of a collection, created by this schema unless it is there."""
    root, defaults = settings.data_dir, settings.default_encoders()
    try:
        wanted = CollectionSchema.model_validate({**defaults, **schema})
        with explained():
            fingerprints = IdfTables(settings.idf_tables).fingerprints(wanted)
        return create_collection(root, name, wanted, fingerprints)
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
    load: Load,
    progress: Progress,
    logs: Logs,
) -> None:
    """Append documents to a collection's log, then apply it here or, if a worker has the collection, wait."""
    directory = collection_path(root, name)
    log = logs.open(directory, read_current(directory).position)
    try:
        watch = Watch(progress, lambda job: _state(log, job), total)
        job = uuid.uuid4().hex
        for batch in _batches(documents):
            log.append([upsert(document) for document in batch], job)
            watch.add(job, len(batch))
        _apply(root, name, load, watch, logs)
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
async def engine_here(settings: Settings, load: Load) -> AsyncIterator[tuple[Engine, Nets]]:
    """Make the engine that answers HTTP, without HTTP, and the nets it asks.

    No search is logged as slow: who asks here waits for it, and is shown how long it took.
    """
    settings = settings.model_copy(update={"slow_search_ms": 0})
    workers = Workers(settings.threads)
    metrics = Metrics()
    nets = Nets(settings, workers, load, metrics)
    try:
        yield Engine(settings, nets, workers, Turns(workers.threads), metrics), nets
    finally:
        await nets.stop()
        workers.close()


async def prepare(engine: Engine, nets: Nets, snapshot: Snapshot, request: SearchRequest) -> None:
    """Compile and load what a request needs: that takes longer than the request may take."""
    with explained():
        stages = engine.plan(snapshot.schema, request)
    await asyncio.to_thread(warm)
    for role, name in engine.nets_of(snapshot.schema, stages):
        with suppress(EncoderError):  # the answer will say it
            await nets.get(role, name, None)


async def ask(engine: Engine, snapshot: Snapshot, request: SearchRequest) -> SearchResponse:
    """Search; what is wrong with the request becomes a CommandError."""
    with explained():
        return await engine.search(snapshot, request)


def loader_here(cache: Path) -> Load:
    """How nets are loaded here: weights that are missing or unfit are a CommandError."""
    load = loader(cache)

    def load_or_say(role: Role, name: str) -> Loaded:
        try:
            return load(role, name)
        except (WeightsMissing, ValueError) as error:
            raise CommandError(str(error)) from error

    return load_or_say


def index_locally(data_dir: Path, source: Path, total: int, name: str, schema: dict[str, Any]) -> None:
    """`winnow index` without a service."""
    settings = settings_from(data_dir=data_dir, host="127.0.0.1")
    directory = ensure_collection(name, schema, settings)
    load = cache(loader_here(data_dir / "cache" / "models"))
    announce_keys(directory, source, total, load)
    with progress_bar() as progress:
        index_documents(data_dir, name, read_documents(source), total, load, progress, Logs(settings.redis()))


def search_locally(data_dir: Path, name: str, request: dict[str, Any]) -> dict[str, Any]:
    """`winnow search` without a service."""
    settings = settings_from(data_dir=data_dir, host="127.0.0.1")
    snapshot = open_snapshot(data_dir, name)

    async def answer() -> SearchResponse:
        asked, load = SearchRequest(**request), loader_here(data_dir / "cache" / "models")
        async with engine_here(settings, load) as (engine, nets):
            await prepare(engine, nets, snapshot, asked)
            return await ask(engine, snapshot, asked)

    return dict(asyncio.run(answer()))


@contextmanager
def explained() -> Iterator[None]:
    """What is wrong with a request becomes a CommandError."""
    try:
        yield
    except (ServiceError, FilterError) as error:
        raise CommandError(as_service_error(error).detail) from error


def _apply(root: Path, name: str, load: Load, watch: Watch, logs: Logs) -> None:
    try:
        drain(root, name, load, lambda *_: watch.update(), logs)
    except Locked:
        stderr().print("A worker has this collection; it will index what was written. Waiting …")
    except (WrongEncoder, CorruptFile) as error:
        raise CommandError(str(error)) from error


def _state(log: Log, job: str) -> JobState | None:
    found = log.job(job)
    return None if found is None else asdict(found)


def _batches(documents: Iterable[Document]) -> Iterator[list[Document]]:
    remaining = iter(documents)
    while batch := list(islice(remaining, BATCH_DOCUMENTS)):
        yield batch
