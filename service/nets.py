"""The nets this process serves, each behind its own batcher, loaded once and when first needed.

Loading takes seconds, so it happens in a thread while requests that need the net wait until their deadline.
A net that cannot be loaded is asked for again by the next request: finding out that weights are missing is
quick, and they may have been installed since.
"""

import asyncio
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from models import Kind
from models.csr import Csr
from models.load import WeightsMissing
from models.roles import Load, Loaded, Role
from service.batch_queue import Array
from service.batcher import Batcher, Net
from service.budgets import UNMEASURED, measured
from service.errors import EncoderError, no_cross_encoder
from service.idf import IdfTables
from service.late_net import LateEncoder, LateNet
from service.metrics import Metrics
from service.net_errors import as_stage_errors
from service.net_metrics import NetMetrics
from service.settings import Settings
from service.types import Pieces, QuestionTokens, Terms
from service.workers import Workers, cores

if TYPE_CHECKING:  # it brings torch
    from service.cross import CrossReranker
    from service.in_context import Reranker

log = logging.getLogger(__name__)


class SparseEncoder(Loaded, Protocol):
    """What the service asks of `models.sparse.SparseEncoder`."""

    name: str
    max_tokens: int
    vocabulary: int
    ids: Mapping[str, int]
    idf: NDArray[np.float32] | None

    def tokenize(self, texts: Sequence[str], kind: Kind) -> list[list[int]]:
        """Token ids of each text; never an empty list."""
        ...

    def forward(self, tokens: Sequence[Sequence[int]]) -> Csr:
        """One row per text, in order."""
        ...

    def finish(self, vectors: Csr, kind: Kind) -> Csr:
        """What is done to rows after a forward."""
        ...

    def encode(self, texts: Sequence[str], kind: Kind) -> Csr:
        """All of it: one finished row per text, in order."""
        ...

    def pieces(self, texts: Sequence[str]) -> list[NDArray[np.int32]]:
        """The different word pieces of each text, ascending."""
        ...

    def words(self, terms: NDArray[np.int32]) -> list[str]:
        """Vocabulary entries as a reader knows them."""
        ...


class SparseNet:
    """A sparse encoder as a batcher wants it: a forward gives an array of vectors, one an element."""

    def __init__(self, encoder: SparseEncoder) -> None:
        self.max_tokens = encoder.max_tokens
        self.tokenize = encoder.tokenize
        self._encoder = encoder

    def forward(self, tokens: Sequence[Sequence[int]]) -> Array:
        """object[n] of `Csr` of one row each."""
        vectors = self._encoder.forward(tokens)
        rows = np.empty(len(vectors), np.object_)
        for number in range(len(vectors)):
            rows[number] = vectors.take([number])
        return rows


class Running(NamedTuple):
    """A net that is loaded, and the queue before it."""

    net: Loaded
    batcher: Batcher


class Nets:
    """Encoders by role and name."""

    def __init__(
        self, settings: Settings, workers: Workers, load: Load, metrics: Metrics | None = None
    ) -> None:
        self.errors: dict[str, str] = {}  # why an encoder that was asked for is not there
        self.tables = IdfTables(settings.idf_tables)
        self._settings = settings
        self._workers = workers
        self._metrics = metrics
        self._load = load
        self._tasks: dict[tuple[Role, str], asyncio.Task[Running]] = {}

    async def query_vector(self, encoder: str, fingerprint: str | None, query: str) -> NDArray[np.float32]:
        """Encode one question, together with those that others ask just now: float32[dim]."""
        running = await self.get("dense", encoder, fingerprint)
        vector: NDArray[np.float32] = await _encode(running.batcher, query)
        return vector

    async def query_terms(self, encoder: str, fingerprint: str | None, query: str) -> Terms:
        """The vocabulary entries that one question weighs, encoded together with what others ask just now.

        Where a table weighs them there is nothing to wait for.
        """
        running = await self.get("sparse", encoder, fingerprint)
        net = cast(SparseEncoder, running.net)
        if net.idf is not None:
            return (await self._workers.run(net.encode, [query], "query")).row(0)
        made: Csr = await _encode(running.batcher, query)
        return net.finish(made, "query").row(0)

    async def query_tokens(self, encoder: str, fingerprint: str | None, query: str) -> QuestionTokens:
        """The token vectors of one question, encoded together with what others ask just now."""
        running = await self.get("late", encoder, fingerprint)
        vectors: QuestionTokens = await _encode(running.batcher, query)
        return vectors

    async def pooled(self, encoder: str, fingerprint: str | None) -> str | None:
        """Fingerprint of the dense encoder whose vectors this late-interaction encoder makes too, if any."""
        return cast(LateEncoder, (await self.get("late", encoder, fingerprint)).net).pooled

    async def reranker(self, name: str, fingerprint: str | None) -> "Reranker":
        """The language model of this name, which reads in context."""
        return cast("Reranker", (await self.get("in_context", name, fingerprint)).net)

    async def cross(self) -> "CrossReranker":
        """The service's cross-encoder. NotConfiguredError where the settings name none."""
        if self._settings.cross_encoder is None:
            raise no_cross_encoder()
        return cast("CrossReranker", (await self.get("cross", self._settings.cross_encoder, None)).net)

    async def pieces(self, encoder: str, fingerprint: str | None) -> Pieces:
        """How a sparse encoder cuts texts into word pieces. No net runs for it."""
        return cast(SparseEncoder, (await self.get("sparse", encoder, fingerprint)).net).pieces

    def idf_table(self, name: str, fingerprint: str | None, encoder: str) -> NDArray[np.float32]:
        """What a table of the settings gives to the entries of a sparse encoder that is loaded."""
        return self.tables.get(name, fingerprint, self._loaded_sparse(encoder))

    def words(self, encoder: str, terms: NDArray[np.int32]) -> list[str]:
        """Vocabulary entries of a sparse encoder that is loaded, as a reader knows them."""
        return self._loaded_sparse(encoder).words(terms)

    def question_tokens(self, encoder: str, query: str) -> list[str]:
        """What each token vector of a question stands for, by a late-interaction encoder that is loaded."""
        net = self._loaded_late(encoder)
        return net.words(net.pieces([query], "query")[0][0])

    def token_words(self, encoder: str, ids: NDArray[np.int32]) -> list[str]:
        """Vocabulary entries of a late-interaction encoder that is loaded, as a reader knows them."""
        return self._loaded_late(encoder).words(ids)

    async def get(self, role: Role, name: str, fingerprint: str | None) -> Running:
        """The encoder `name`, loaded. EncoderError if it cannot be had, or is not `fingerprint`."""
        task = self._tasks.get((role, name))
        if task is None:
            task = self._tasks[role, name] = asyncio.create_task(self._start(role, name))
        try:
            running = await asyncio.shield(task)
        except Exception as error:  # weights come from anywhere, and lexical search goes on without them
            self._failed(role, name, task, error)
            raise EncoderError(f"encoder {name} cannot be loaded: {error}") from error
        self.errors.pop(name, None)
        found = running.net.fingerprint
        if fingerprint not in (None, found):
            raise EncoderError(
                f"the collection was encoded with {fingerprint}, and the weights of {name} are now {found}: "
                "index it again, or put the old weights back"
            )
        return running

    def queues(self) -> Iterator[tuple[Role, Batcher]]:
        """What stands before those that are loaded, with what they are for."""
        for (role, _), task in self._tasks.items():
            if task.done() and not task.cancelled() and task.exception() is None:
                yield role, task.result().batcher

    def batchers(self) -> Iterator[Batcher]:
        """What stands before those that are loaded."""
        return (batcher for _, batcher in self.queues())

    def rerankers(self) -> Iterator["Reranker"]:
        """The language models that are loaded."""
        for (role, _), task in self._tasks.items():
            if role == "in_context" and task.done() and not task.cancelled() and task.exception() is None:
                yield cast("Reranker", task.result().net)

    async def stop(self) -> None:
        """Stop all batchers."""
        for task in self._tasks.values():
            task.cancel()
        for batcher in self.batchers():
            await batcher.close()

    def _loaded_late(self, name: str) -> LateEncoder:
        return cast(LateEncoder, self._tasks["late", name].result().net)

    def _loaded_sparse(self, name: str) -> SparseEncoder:
        return cast(SparseEncoder, self._tasks["sparse", name].result().net)

    async def _start(self, role: Role, name: str) -> Running:
        loaded = await asyncio.to_thread(self._load, role, name)
        if role == "in_context":
            return await self._start_reranker(loaded, name)
        if role == "cross":
            return await self._start_cross(loaded, name)
        return Running(loaded, await self._behind(role, _for_batches(role, loaded), name))

    async def _start_cross(self, loaded: Loaded, name: str) -> Running:
        from service.cross import CrossEncoder, CrossNet, CrossReranker

        net, settings = cast(CrossEncoder, loaded), self._settings
        batcher = await self._behind("cross", CrossNet(net), name, lambda text: ("moon", text))
        return Running(CrossReranker(net, batcher, self._workers, settings.queued_tokens), batcher)

    async def _start_reranker(self, loaded: Loaded, name: str) -> Running:
        from models.in_context.net import InContextNet  # it brings torch
        from service.in_context import kv_cache, reranker

        settings, model = self._settings, cast(InContextNet, loaded)
        net = reranker(
            model,
            lambda timed, tokens: self._before("in_context", timed, name, tokens),
            self._workers,
            await asyncio.to_thread(kv_cache, model, settings.in_context_cache_bytes),
            settings.batch_tokens or UNMEASURED,
        )
        await net.batcher.start()
        await net.warm()
        return Running(net, net.batcher)

    async def _behind(self, role: Role, net: Net, name: str, make: Callable[[str], Any] = str) -> Batcher:
        """What stands before a net that has run, with a budget found by running it, if none is set.

        `make` makes an input of a text.
        """
        tokens = self._settings.batch_tokens
        batcher = self._before(role, net, name, tokens or UNMEASURED)
        if tokens is None:
            await batcher.tune(partial(measured, make=make))
            found = batcher.budget, batcher.tokens_per_second
            log.info("net %s (%s): %d tokens a forward, %.0f tokens/s", name, role, *found)
        await batcher.start()
        await batcher.encode([make("first forwards are slow")])
        return batcher

    def _before(self, role: Role, net: Net, name: str, tokens: int) -> Batcher:
        """What stands before a net, with forwards of so many tokens."""
        from models.cores import side_by_side, use  # they bring torch

        settings = self._settings
        number = settings.threads or cores()
        forwards = 1 if role == "in_context" else side_by_side(number)
        return Batcher(
            net,
            self._workers,
            budget=tokens,
            most=settings.batch_texts,
            limit=settings.queued_tokens,
            name=name,
            forwards=forwards,
            prepare=partial(use, max(1, number // forwards)),
            observer=None if self._metrics is None else NetMetrics(self._metrics.nets, role, name),
        )

    def _failed(self, role: Role, name: str, task: asyncio.Task[Running], error: Exception) -> None:
        if self.errors.get(name) != str(error):
            trace = None if isinstance(error, WeightsMissing) else error
            log.warning("encoder %s cannot be loaded: %s", name, error, exc_info=trace)
        self.errors[name] = str(error)
        if self._tasks.get((role, name)) is task:
            del self._tasks[role, name]


def _for_batches(role: Role, loaded: Loaded) -> Net:
    if role == "sparse":
        return SparseNet(cast(SparseEncoder, loaded))
    return LateNet(cast(LateEncoder, loaded)) if role == "late" else cast(Net, loaded)


async def _encode(batcher: Batcher, query: str) -> Any:
    """The row of one question."""
    with as_stage_errors(batcher.name):
        return (await batcher.encode([query], kind="query"))[0]
