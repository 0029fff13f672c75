"""An index that lives as long as an evaluation, and the pipelines that are run over it."""

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any, TypeVar

import typer
from rich.progress import Progress

from indexer.kernels import warm
from indexer.queue.logs import Logs
from indexer.segment.manifest import Component
from indexer.sources import count_documents, read_documents
from models.roles import Loaded, Role
from service.commands.common import settings_from
from service.commands.encoding_cache import Cached, cached
from service.commands.local import (
    ask,
    engine_here,
    ensure_collection,
    explained,
    index_documents,
    loader_here,
    open_snapshot,
)
from service.engine import Engine, named_pipelines, needs
from service.evaluation import DEPTH, Answer, answer_of
from service.schema.search import SearchRequest, SearchResponse, Shown
from service.settings import Limits
from service.snapshot import Snapshot
from service.stages import AnyStage, Fuse, Pipeline
from service.types import Search

COLLECTION = "evaluation"
FILES: dict[Component, tuple[str, ...]] = {
    "bm25": ("lexical", "documents"),
    "dense": ("dense",),
    "sparse": ("sparse",),
    "late": ("late",),
    "keys": ("keys",),
}
"""How the names of a segment's files begin that a component reads."""
NO_DEADLINE_MS = 24 * 3600 * 1000
IN_FLIGHT = 32
"""Questions worked on at a time where nobody measures how long each takes: nets read them in batches."""

T = TypeVar("T")


class TrialRun:
    """Indexes a corpus below `root`, then answers queries by every pipeline. `cache` outlives it.

    Pipelines are named, or given by the names that their answers shall have; `given` are settings.
    """

    def __init__(
        self,
        root: Path,
        cache_directory: Path,
        pipelines: Sequence[str] | Mapping[str, Pipeline],
        timeout_ms: int | None,
        progress: Progress,
        **given: Any,
    ) -> None:
        self.root = root
        self.cache = cache_directory
        self.progress = progress
        timeout = timeout_ms or NO_DEADLINE_MS
        self.settings = settings_from(
            data_dir=root, host="127.0.0.1", timeout_ms=timeout, limits=Limits(), **given
        )
        stages = pipelines if isinstance(pipelines, Mapping) else self._named(pipelines)
        hurried = timeout_ms is not None
        self.pipelines = {
            name: each if hurried else tuple(_without_budgets(each)) for name, each in stages.items()
        }
        self._load = cache(loader_here(cache_directory / "models"))

    def index(self, dataset: Path, schema: Mapping[str, Any]) -> None:
        """Index the corpus of a BEIR folder with the components that the pipelines need."""
        needed = sorted(set().union(*(needs(stages) for stages in self.pipelines.values())))
        ensure_collection(COLLECTION, {"components": needed, **schema}, self.settings)
        encoders: list[Cached] = []

        def load(role: Role, name: str) -> Loaded:
            net = self._load(role, name)
            if role in ("late", "in_context", "quality"):  # vectors of tokens would fill the disk
                return net
            encoders.append(cached(role, net, self.cache / "encodings", dataset.resolve().name))
            return encoders[-1]

        documents, total = read_documents(dataset), count_documents(dataset)
        try:
            index_documents(self.root, COLLECTION, documents, total, load, self.progress, Logs())
        finally:  # vectors made before an interruption are not made again
            for encoder in encoders:
                encoder.save()

    def bytes_per_document(self) -> dict[str, float]:
        """Return pipeline name -> bytes of what it reads of an index to find hits, a document."""
        manifest = open_snapshot(self.root, COLLECTION).manifest
        sizes: Counter[str] = Counter()
        for entry in manifest.segments:
            for name, file in entry.files.items():
                sizes[name.partition(".")[0]] += file.size
        documents = max(1, manifest.statistics.documents)
        return {
            name: sum(sizes[file] for component in needs(stages) for file in FILES[component]) / documents
            for name, stages in self.pipelines.items()
        }

    def answers(self, queries: Mapping[str, str]) -> dict[str, dict[str, Answer]]:
        """Return pipeline name -> query id -> answer."""
        return asyncio.run(self._each(queries, DEPTH, (), answer_of))

    def responses(
        self, queries: Mapping[str, str], top_k: int, fields: tuple[Shown, ...]
    ) -> dict[str, dict[str, SearchResponse]]:
        """Return pipeline name -> query id -> response, with so many hits that show these fields."""
        return asyncio.run(self._each(queries, top_k, fields, lambda response: response))

    def worked(self, queries: Mapping[str, str], work: Callable[[str, Search], Awaitable[T]]) -> dict[str, T]:
        """Return query id -> what `work` makes of the id and a search that has not begun; many at a time."""
        return asyncio.run(self._together(queries, work))

    def snapshot(self) -> Snapshot:
        """What was indexed."""
        return open_snapshot(self.root, COLLECTION)

    async def _together(
        self, queries: Mapping[str, str], work: Callable[[str, Search], Awaitable[T]]
    ) -> dict[str, T]:
        snapshot, made, waiting = self.snapshot(), dict[str, T](), iter(queries.items())
        alive = tuple(part.alive for part in snapshot.parts)
        bar = self.progress.add_task("searching", total=len(queries))
        warm()

        async def take(engine: Engine) -> None:
            for query, text in waiting:
                deadline = time.monotonic() + NO_DEADLINE_MS / 1000
                search = Search(text, snapshot, alive, deadline, engine.nets, engine.workers)
                try:
                    with explained():
                        made[query] = await work(query, search)
                finally:
                    await search.forget()
                self.progress.advance(bar)

        async with engine_here(self.settings, self._load) as (engine, _):
            await asyncio.gather(*(take(engine) for _ in range(IN_FLIGHT)))
        return {query: made[query] for query in queries}

    async def _each(
        self,
        queries: Mapping[str, str],
        top_k: int,
        fields: tuple[Shown, ...],
        made: Callable[[SearchResponse], T],
    ) -> dict[str, dict[str, T]]:
        found: dict[str, dict[str, T]] = {name: {} for name in self.pipelines}
        snapshot = open_snapshot(self.root, COLLECTION)
        warm()
        async with engine_here(self.settings, self._load) as (engine, _):
            ask_all = partial(self._one_round, engine, snapshot, top_k=top_k, fields=fields)
            await ask_all(next(iter(queries.values())))  # what is slow the first time
            for query, text in self.progress.track(queries.items(), description="searching"):
                for name, response in (await ask_all(text)).items():
                    found[name][query] = made(response)
        return found

    async def _one_round(
        self, engine: Engine, snapshot: Snapshot, text: str, top_k: int, fields: tuple[Shown, ...]
    ) -> dict[str, SearchResponse]:
        responses = {}
        for name, stages in self.pipelines.items():
            request = SearchRequest(query=text, top_k=top_k, pipeline=stages, fields=fields)
            responses[name] = await ask(engine, snapshot, request)
        return responses

    def _named(self, names: Iterable[str]) -> dict[str, Pipeline]:
        known = named_pipelines(self.settings.pipelines)
        for name in names:
            if name not in known:
                there = ", ".join(sorted(known))
                raise typer.BadParameter(f"there is no pipeline {name!r}; there are {there}")
        return {name: known[name] for name in names}


def _without_budgets(stages: Iterable[AnyStage]) -> Iterator[AnyStage]:
    """Effectiveness is measured without hurry: a budget of a stage would make it depend on the machine."""
    for stage in stages:
        changes: dict[str, Any] = {"budget_ms": None}
        if isinstance(stage, Fuse):
            changes["inputs"] = tuple(tuple(_without_budgets(pipeline)) for pipeline in stage.inputs)
        yield stage.model_copy(update=changes)
