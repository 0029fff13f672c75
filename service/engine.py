"""A search from request to response, alike for HTTP and for evaluation in-process.

Plan (a name or a spelled-out list becomes stages that this collection can run), begin (the filter becomes a
mask over every segment), run the pipeline, then read what the page shows from the store. Checks come first,
so that work is only begun for what can be answered.
"""

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from pydantic import TypeAdapter

from indexer.filters import Filter, parse
from indexer.segment.manifest import REORDERING, CollectionSchema, Component
from models.roles import Role
from service import limits
from service.errors import ComponentError, DamagedError, InvalidError, LimitError, no_cross_encoder
from service.kept import Kept
from service.metrics import Metrics
from service.pipeline import degraded, run
from service.present import present
from service.schema.search import SearchRequest, SearchResponse
from service.settings import Limits, Settings
from service.snapshot import Part, Snapshot
from service.stages import (
    AnyStage,
    Bm25,
    Cross,
    Dense,
    FastForward,
    Fuse,
    Group,
    InContext,
    Late,
    Pipeline,
    Sparse,
)
from service.turns import Turns
from service.types import Mask, Nets, Search, Stage
from service.workers import Workers

_WORDS = Fuse(inputs=((Bm25(),), (Sparse(),)), weights=(0.7, 0.3), unit="document")
_MEANING = FastForward(sparse_weight=0.25, normalisation="minmax", aggregate="max")
_TOKENS = Late(k=100, weight=0.6, aggregate="max")

NAMED: Mapping[str, Pipeline] = {
    "bm25": (Bm25(), Group()),
    "dense": (Dense(), Group()),
    "sparse": (Sparse(), Group()),
    "hybrid": (
        Fuse(inputs=((Bm25(k=300),), (Dense(k=300),)), weights=(0.5, 0.5), unit="document"),
        Group(),
    ),
    "fast": (_WORDS, Group()),
    "balanced": (_WORDS, _MEANING, Group()),
    "precise": (_WORDS, _MEANING, _TOKENS, Group()),
    "deep": (_WORDS, _MEANING, _TOKENS, InContext(mode="query_aware", k=20, weight=0.15), Group()),
}
"""Weights and depths were chosen on cosqa, vaswani and time: docs/decisions/0011 and 0014."""


def named_pipelines(given: Mapping[str, list[dict[str, Any]]]) -> dict[str, Pipeline]:
    """The pipelines that a request may name: those above and those of the settings, which win."""
    reader: TypeAdapter[Pipeline] = TypeAdapter(Pipeline)
    return {**NAMED, **{name: reader.validate_python(stages) for name, stages in given.items()}}


class Engine:
    """Answers searches over any snapshot."""

    def __init__(
        self, settings: Settings, nets: Nets, workers: Workers, turns: Turns, metrics: Metrics
    ) -> None:
        self.limits = settings.limits
        self.timeout_ms = settings.timeout_ms
        self.cross_encoder = settings.cross_encoder
        self.pipelines = named_pipelines(settings.pipelines)
        self.nets = nets
        self.workers = workers
        self._turns = turns
        self._kept = Kept(metrics, settings.slow_search_ms)

    async def search(self, snapshot: Snapshot, request: SearchRequest) -> SearchResponse:
        """Answer one request. Raises a ServiceError, FilterError, or what the snapshot's files cause."""
        began = time.perf_counter()
        return await self.answer(snapshot, self.plan(snapshot.schema, request), request, began)

    async def answer(
        self, snapshot: Snapshot, stages: Pipeline, request: SearchRequest, began: float
    ) -> SearchResponse:
        """Answer one request by the stages of its plan. It began at that time of `time.perf_counter`."""
        if snapshot.missing and not snapshot.parts:
            raise DamagedError(f"no segment is left to search: {'; '.join(snapshot.missing)}")
        search = await self._begin(snapshot, request)
        try:
            async with self._turns.taken(search.deadline):
                outcome = await run(stages, search)
        finally:
            await search.forget()
        wanted = _wanted(snapshot.schema, request.pipeline)
        self._kept.keep(snapshot.directory.name, wanted, outcome, time.perf_counter() - began)
        if outcome.failure is not None:
            raise outcome.failure
        page = outcome.hits.take(slice(request.offset, request.offset + request.top_k))
        hits = await self.workers.run(present, search, stages, page, request)
        return {
            "hits": hits,
            "stages": outcome.accounts,
            "degraded": degraded(outcome.accounts),
            "generation": snapshot.generation,
            "cached": False,
            "took_ms": round((time.perf_counter() - began) * 1000, 3),
        }

    def plan(self, schema: CollectionSchema, request: SearchRequest) -> Pipeline:
        """The stages that will run. InvalidError and its kin say what cannot be."""
        limits.check(request, self.limits)
        if request.offset + request.top_k > self.limits.candidates:
            last = request.offset + request.top_k
            raise LimitError("candidates", self.limits.candidates, last, "offset + top_k")
        stages = self._stages(schema, request.pipeline)
        check(stages, schema, self.limits)
        if self.cross_encoder is None and uses(stages, Cross):
            raise no_cross_encoder()
        return ungrouped(stages) if request.group_by == "passage" else stages

    def nets_of(self, schema: CollectionSchema, stages: Pipeline) -> list[tuple[Role, str]]:
        """The nets that stages may ask, by role and name."""
        nets: dict[Role, str] = dict(schema.encoders(needs(stages)).items())
        if uses(stages, InContext):
            nets["in_context"] = schema.in_context_model
        if uses(stages, Cross) and self.cross_encoder is not None:
            nets["cross"] = self.cross_encoder
        return list(nets.items())

    def _stages(self, schema: CollectionSchema, given: str | Pipeline | None) -> Pipeline:
        wanted = _wanted(schema, given)
        if not isinstance(wanted, str):
            return wanted
        if wanted not in self.pipelines:
            known = ", ".join(sorted(self.pipelines))
            raise InvalidError(f"there is no pipeline {wanted[:100]!r}; there are {known}")
        return self.pipelines[wanted]

    async def _begin(self, snapshot: Snapshot, request: SearchRequest) -> Search:
        timeout = request.timeout_ms or self.timeout_ms
        alive = tuple(part.alive for part in snapshot.parts)
        deadline = time.monotonic() + timeout / 1000
        search = Search(request.query, snapshot, alive, deadline, self.nets, self.workers)
        if not request.filter:
            return search
        wanted = parse(request.filter, self.limits.filter_depth, self.limits.filter_nodes)
        allowed = await search.in_thread(_masks, snapshot.parts, wanted)
        return replace(search, allowed=allowed)


def _wanted(schema: CollectionSchema, given: str | Pipeline | None) -> str | Pipeline:
    return _default(schema.components) if given is None else given


def _default(components: Sequence[Component]) -> str | Pipeline:
    """`balanced` or, without sparse, `hybrid`; else what there is, two retrievers fused in equal parts.

    Never what only reorders: it is opted for by naming a pipeline.
    """
    retrieving = [each for each in components if each not in REORDERING]
    if {"bm25", "dense"} <= set(retrieving):
        return "balanced" if "sparse" in retrieving else "hybrid"
    if len(retrieving) == 1:
        return retrieving[0]
    retrievers: Mapping[Component, AnyStage] = {
        "bm25": Bm25(k=300),
        "dense": Dense(k=300),
        "sparse": Sparse(k=300),
    }
    return (Fuse(inputs=tuple((retrievers[each],) for each in retrieving), unit="document"), Group())


def needs(stages: Sequence[AnyStage]) -> set[Component]:
    """The components that a pipeline reads, those inside of fusion included."""
    inner = (needs(pipeline) for stage in stages if isinstance(stage, Fuse) for pipeline in stage.inputs)
    return {stage.needs for stage in stages if stage.needs is not None}.union(*inner)


def uses(stages: Sequence[AnyStage], kind: type[Stage]) -> bool:
    """Whether a pipeline has a stage of a class, those inside of fusion included."""
    return any(
        isinstance(stage, kind)
        or (isinstance(stage, Fuse) and any(uses(pipeline, kind) for pipeline in stage.inputs))
        for stage in stages
    )


def ungrouped(stages: Pipeline) -> Pipeline:
    """The same pipeline giving passages: its last stage does not group, and its others are of passages."""
    kept = stages[:-1] if isinstance(stages[-1], Group) else stages
    return tuple(_of_passages(stage) for stage in kept)


def _of_passages(stage: AnyStage) -> AnyStage:
    changes: dict[str, Any] = {}
    if isinstance(stage, Fuse):
        inputs = tuple(tuple(map(_of_passages, pipeline)) for pipeline in stage.inputs)
        changes = {"unit": "passage", "inputs": inputs}
    elif isinstance(stage, Bm25):
        changes = {"unit": "passage"}
    elif isinstance(stage, FastForward | Late):
        changes = {"aggregate": "passage"}
    elif isinstance(stage, Cross):
        changes = {"unit": "passage"}
    return stage.model_copy(update=changes)


def check(stages: Sequence[AnyStage], schema: CollectionSchema, most: Limits) -> None:
    """InvalidError if these stages cannot make a pipeline over such a collection."""
    number, depth = _extent(stages)
    if number > most.stages:
        raise LimitError("stages", most.stages, number, "pipeline")
    if depth > most.pipeline_depth:
        raise LimitError("pipeline_depth", most.pipeline_depth, depth, "pipeline")
    _check(stages, schema)


def _extent(stages: Sequence[AnyStage]) -> tuple[int, int]:
    """Number of stages, and how deep they nest."""
    inner = [_extent(pipeline) for stage in stages if isinstance(stage, Fuse) for pipeline in stage.inputs]
    return len(stages) + sum(n for n, _ in inner), 1 + max((d for _, d in inner), default=0)


def _check(stages: Sequence[AnyStage], schema: CollectionSchema) -> None:
    for place, stage in enumerate(stages):
        if stage.starts and place > 0:
            raise InvalidError(
                f"stage {stage.stage!r} finds hits itself, so it comes first in a pipeline; to join it with "
                "others make each an input of 'fuse'"
            )
        if not stage.starts and place == 0:
            raise InvalidError(
                f"stage {stage.stage!r} needs hits to work on: begin with bm25, dense, sparse or fuse"
            )
        if stage.needs is not None and stage.needs not in schema.components:
            wanted = json.dumps({"components": sorted({*schema.components, stage.needs})})
            raise ComponentError(
                f"stage {stage.stage!r} needs the component {stage.needs!r}, and this collection was made "
                f"with {list(schema.components)}: leave the stage out, or make a collection with "
                f"PUT /v1/collections/NAME {wanted} and index it again"
            )
        if isinstance(stage, Bm25):
            stage.unit_of(schema)
        if isinstance(stage, Fuse):
            for pipeline in stage.inputs:
                _check(pipeline, schema)


def _masks(parts: Sequence[Part], wanted: Filter) -> tuple[Mask, ...]:
    """Which rows of every segment are alive and match."""
    return tuple(_mask(part, wanted) for part in parts)


def _mask(part: Part, wanted: Filter) -> Mask:
    matching = wanted.mask(part.segment.columns, part.segment.rows)
    return matching if part.alive is None else np.logical_and(matching, part.alive)
