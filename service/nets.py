"""The nets this process serves, each behind its own batcher, loaded once and when first needed.

Loading takes seconds, so it happens in a thread while requests that need the net wait until their deadline.
A net that cannot be loaded is asked for again by the next request: finding out that weights are missing is
quick, and they may have been installed since.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator
from copy import copy
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, Self, cast

import numpy as np
from numpy.typing import NDArray

from models.csr import Csr
from models.load import WeightsMissing
from models.roles import Load, Loaded, Role
from service.batcher import Batcher, Net
from service.budgets import UNMEASURED, measured
from service.errors import EncoderError, no_cross_encoder
from service.idf import IdfTables
from service.late_net import LateEncoder, LateNet
from service.metrics import Metrics
from service.net_errors import as_stage_errors
from service.net_metrics import NetMetrics
from service.query_encodings import Arrays, QueryEncodings
from service.settings import Settings
from service.sparse_net import SparseEncoder, SparseNet
from service.types import Pieces, QuestionTokens, Terms
from service.workers import Workers

if TYPE_CHECKING:  # it brings torch
    from models.in_context.items import KeyQuestion
    from service.cross import CrossReranker
    from service.in_context import Reranker

log = logging.getLogger(__name__)


class Formatted(Loaded, Protocol):
    """A net that says in which number format it computes; all that are asked at search time do."""

    @property
    def dtype(self) -> object:
        """Its name, or torch's own."""
        ...


class Running(NamedTuple):
    """A net that is loaded, and the queue before it. `identity` is another for nets that answer otherwise."""

    net: Loaded
    batcher: Batcher
    identity: str


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
        self._encodings: QueryEncodings | None = None

    def remembering(self, encodings: QueryEncodings | None) -> Self:
        """The same nets, which look there before they encode a question."""
        other = copy(self)
        other._encodings = encodings
        return other

    async def query_vector(self, encoder: str, fingerprint: str | None, query: str) -> NDArray[np.float32]:
        """Encode one question, together with those that others ask just now: float32[dim]."""
        running = await self.get("dense", encoder, fingerprint)

        async def make() -> Arrays:
            return {"vector": await _encode(running.batcher, query)}

        return (await self._encoding(running, query, make))["vector"]

    async def query_terms(self, encoder: str, fingerprint: str | None, query: str) -> Terms:
        """The vocabulary entries that one question weighs, encoded together with what others ask just now.

        Where a table weighs them there is nothing to wait for.
        """
        running = await self.get("sparse", encoder, fingerprint)
        net = cast(SparseEncoder, running.net)
        if net.idf is not None:
            return (await self._workers.run(net.encode, [query], "query")).row(0)

        async def make() -> Arrays:
            row: Csr = await _encode(running.batcher, query)
            terms, weights = net.finish(row, "query").row(0)
            return {"terms": terms, "weights": weights}

        made = await self._encoding(running, query, make)
        return made["terms"], made["weights"]

    async def query_tokens(self, encoder: str, fingerprint: str | None, query: str) -> QuestionTokens:
        """The token vectors of one question, encoded together with what others ask just now."""
        running = await self.get("late", encoder, fingerprint)

        async def make() -> Arrays:
            tokens: QuestionTokens = await _encode(running.batcher, query)
            return {name: made for name, made in tokens._asdict().items() if made is not None}

        made = await self._encoding(running, query, make)
        return QuestionTokens(made["vectors"], made.get("sentence"))

    async def pooled(self, encoder: str, fingerprint: str | None) -> str | None:
        """Fingerprint of the dense encoder whose vectors this late-interaction encoder makes too, if any."""
        return cast(LateEncoder, (await self.get("late", encoder, fingerprint)).net).pooled

    async def reranker(self, name: str, fingerprint: str | None) -> "Reranker":
        """The language model of this name, which reads in context."""
        return cast("Reranker", (await self.get("in_context", name, fingerprint)).net)

    async def key_question(
        self, name: str, fingerprint: str | None, query: str
    ) -> tuple["Reranker", "KeyQuestion"]:
        """A question for stored keys, by the language model of this name."""
        from models.in_context.items import KeyQuestion  # it brings torch

        running = await self.get("in_context", name, fingerprint)
        net = cast("Reranker", running.net)

        async def make() -> Arrays:
            return vars(await net.key_question(query))

        return net, KeyQuestion(**await self._encoding(running, query, make))

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

    def identity(self, role: Role, name: str) -> str | None:
        """What tells this net from any that would answer otherwise; None while it is not loaded."""
        task = self._tasks.get((role, name))
        return task.result().identity if task is not None and _succeeded(task) else None

    def queues(self) -> Iterator[tuple[Role, Batcher]]:
        """What stands before those that are loaded, with what they are for."""
        for (role, _), task in self._tasks.items():
            if _succeeded(task):
                yield role, task.result().batcher

    def batchers(self) -> Iterator[Batcher]:
        """What stands before those that are loaded."""
        return (batcher for _, batcher in self.queues())

    def rerankers(self) -> Iterator["Reranker"]:
        """The language models that are loaded."""
        for (role, _), task in self._tasks.items():
            if role == "in_context" and _succeeded(task):
                yield cast("Reranker", task.result().net)

    async def stop(self) -> None:
        """Stop all batchers."""
        for task in self._tasks.values():
            task.cancel()
        for batcher in self.batchers():
            await batcher.close()

    async def _encoding(self, running: Running, query: str, make: Callable[[], Awaitable[Arrays]]) -> Arrays:
        """What a net makes of a question, or made of it before."""
        if self._encodings is None:
            return await make()
        return await self._encodings.of(running.identity, query, make)

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
        batcher = await self._behind(role, _for_batches(role, loaded), name)
        return Running(loaded, batcher, _identity(role, loaded))

    async def _start_cross(self, loaded: Loaded, name: str) -> Running:
        from service.cross import CrossEncoder, CrossNet, CrossReranker

        net, settings = cast(CrossEncoder, loaded), self._settings
        batcher = await self._behind("cross", CrossNet(net), name, lambda text: ("moon", text))
        reranker = CrossReranker(net, batcher, self._workers, settings.queued_tokens)
        return Running(reranker, batcher, _identity("cross", loaded))

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
        return Running(net, net.batcher, _identity("in_context", loaded, repr(model.recipe)))

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
        number = settings.cpu_threads()
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


def _identity(role: Role, net: Loaded, more: str = "") -> str:
    """A fingerprint leaves out the number format, since vectors of any compare, and how a language model is
    asked and read, since what it makes of documents does not depend on it.
    """
    return f"{role} {net.fingerprint} {cast(Formatted, net).dtype} {more}"


def _succeeded(task: asyncio.Task[Running]) -> bool:
    return task.done() and not task.cancelled() and task.exception() is None


async def _encode(batcher: Batcher, query: str) -> Any:
    """The row of one question."""
    with as_stage_errors(batcher.name):
        return (await batcher.encode([query], kind="query"))[0]
