"""The nets this process serves, each behind its own batcher, loaded once and when first needed.

Loading takes seconds, so it happens in a thread while requests that need the net wait until their deadline.
A net that cannot be loaded is asked for again by the next request: finding out that weights are missing is
quick, and they may have been installed since.
"""

import asyncio
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from models.load import WeightsMissing
from service.batcher import Batcher, Closed, Net, NetFailed, Overloaded, TooManyTokens
from service.errors import BusyError, EncoderError
from service.metrics import Metrics, NetMetrics
from service.settings import Settings
from service.workers import Workers

log = logging.getLogger(__name__)


class Encoder(Net, Protocol):
    """A net that says which weights it has."""

    @property
    def fingerprint(self) -> str:
        """What vectors must have been made with to be comparable."""
        ...


LoadEncoder = Callable[[str], Encoder]


def load_encoder(cache: Path) -> LoadEncoder:
    """How encoders are loaded, keeping converted weights in `cache`."""

    def load(name: str) -> Encoder:
        from models.dense import DenseEncoder  # here, since importing torch takes seconds

        return DenseEncoder.load(name, cache=cache)

    return load


class DenseNets:
    """Dense encoders by name."""

    def __init__(
        self, settings: Settings, workers: Workers, load: LoadEncoder, metrics: Metrics | None = None
    ) -> None:
        self.errors: dict[str, str] = {}  # why an encoder that was asked for is not there
        self._settings = settings
        self._workers = workers
        self._metrics = metrics
        self._load = load
        self._tasks: dict[str, asyncio.Task[tuple[str, Batcher]]] = {}

    async def query_vector(self, encoder: str, fingerprint: str | None, query: str) -> NDArray[np.float32]:
        """Encode one question, together with those that others ask just now."""
        batcher = await self.dense(encoder, fingerprint)
        try:
            vectors = await batcher.encode([query], kind="query")
        except Overloaded as error:
            raise BusyError(str(error), retry_after=error.retry_after) from error
        except (NetFailed, TooManyTokens, Closed) as error:
            raise EncoderError(f"encoder {encoder} failed: {error}") from error
        vector: NDArray[np.float32] = vectors[0]
        return vector

    async def dense(self, name: str, fingerprint: str | None) -> Batcher:
        """The queue before the encoder `name`. EncoderError if it cannot be had, or is not `fingerprint`."""
        task = self._tasks.get(name)
        if task is None:
            task = self._tasks[name] = asyncio.create_task(self._start(name))
        try:
            found, batcher = await asyncio.shield(task)
        except Exception as error:  # weights come from anywhere, and lexical search goes on without them
            self._failed(name, task, error)
            raise EncoderError(f"encoder {name} cannot be loaded: {error}") from error
        self.errors.pop(name, None)
        if fingerprint not in (None, found):
            raise EncoderError(
                f"the collection was encoded with {fingerprint}, and the weights of {name} are now {found}: "
                "index it again, or put the old weights back"
            )
        return batcher

    def batchers(self) -> Iterator[Batcher]:
        """Those that are loaded."""
        for task in self._tasks.values():
            if task.done() and not task.cancelled() and task.exception() is None:
                yield task.result()[1]

    async def stop(self) -> None:
        """Stop all batchers."""
        for task in self._tasks.values():
            task.cancel()
        for batcher in self.batchers():
            await batcher.close()

    async def _start(self, name: str) -> tuple[str, Batcher]:
        encoder = await asyncio.to_thread(self._load, name)
        settings = self._settings
        batcher = Batcher(
            encoder,
            self._workers,
            budget=settings.batch_tokens,
            most=settings.batch_texts,
            limit=settings.queued_tokens,
            name=name,
            observer=None if self._metrics is None else NetMetrics(self._metrics, name),
        )
        await batcher.start()
        await batcher.encode(["first forwards are slow"], kind="query")
        return encoder.fingerprint, batcher

    def _failed(self, name: str, task: asyncio.Task[tuple[str, Batcher]], error: Exception) -> None:
        if self.errors.get(name) != str(error):
            trace = None if isinstance(error, WeightsMissing) else error
            log.warning("encoder %s cannot be loaded: %s", name, error, exc_info=trace)
        self.errors[name] = str(error)
        if self._tasks.get(name) is task:
            del self._tasks[name]
