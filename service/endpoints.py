"""The nets as model endpoints ask for them: by the `model` of a request, or the service's default."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Protocol, cast

from models import Kind
from models.csr import Csr, concatenate
from service.embedding import (
    REFUSED,
    Encoded,
    End,
    Fit,
    Reader,
    deadline,
    fitted,
    narrowed,
    read,
    refuse_dimensions,
)
from service.errors import InvalidError, ModelError
from service.inputs import Inputs, refuse_huge
from service.model_info import ModelInfo, model_info
from service.model_names import SERVED, Served, Target, target
from service.nets import Nets, Running
from service.scorers import (
    CrossScorer,
    DenseScorer,
    InContextScorer,
    LateScorer,
    Scored,
    Scorer,
    SparseScorer,
)
from service.scorers.pairs import clipped, score_pairs
from service.settings import Settings
from service.workers import Workers

DEFAULT = "default"

SCORERS: Mapping[Served, Callable[[Running, Workers], Scorer]] = {
    "dense": DenseScorer,
    "sparse": SparseScorer,
    "late": LateScorer,
    "cross": CrossScorer,
    "in_context_keys": partial(InContextScorer, mode="keys"),
    "in_context_cached": partial(InContextScorer, mode="cached"),
    "in_context_query_aware": partial(InContextScorer, mode="query_aware"),
    "in_context_dense": partial(InContextScorer, mode="dense"),
}

ALONE: Sequence[Served] = ("dense", "sparse", "late")
"""Nets that read a text by itself, without the question, as far as their length goes."""


class DenseNet(Protocol):
    """What is asked of a dense encoder."""

    name: str
    dim: int
    normalizes: bool


class SparseNet(Protocol):
    """What is asked of a sparse encoder."""

    def finish(self, vectors: Csr, kind: Kind) -> Csr:
        """What is done to rows after a forward."""
        ...


class Endpoints:
    """Finds the net that a request means."""

    def __init__(self, settings: Settings, nets: Nets, workers: Workers) -> None:
        self._settings = settings
        self.nets = nets
        self.workers = workers
        self.timeout_ms = settings.model_timeout_ms
        self.reranker = settings.reranker
        self._named = {name: target(text) for name, text in settings.models.items()}
        self._weights = settings.weights()

    def names(self) -> list[str]:
        """What `model` may be."""
        return list(dict.fromkeys([*SERVED, *self._named]))

    def usable(self) -> list[str]:
        """Those of them that the settings name weights for."""
        targets = [(name, self.target(name, "dense")) for name in self.names()]
        return [name for name, wanted in targets if wanted.weights or self._weights[wanted.role]]

    def target(self, model: str | None, default: Served, able: Sequence[Served] = SERVED) -> Target:
        """What `model` stands for. ModelError if it is nothing, or not `able` to do what is asked."""
        found = Target(default, None) if model in (None, DEFAULT) else self._named.get(model)
        if found is None and model in SERVED:
            found = Target(model, None)
        if found is None:
            raise ModelError(f"there is no model {str(model)[:100]!r}; there are {', '.join(self.names())}")
        if found.served not in able:
            raise ModelError(f"the model {model!r} does not do this; {', '.join(able)} do")
        return found

    def weights(self, wanted: Target) -> str:
        """The name of a target's weights. ModelError where the settings have none for its role."""
        name = wanted.weights or self._weights[wanted.role]
        if name is None:
            raise ModelError(
                f"no {wanted.role} model is configured: set WINNOW_CROSS_ENCODER to the name of its weights"
            )
        return name

    async def embed(
        self,
        model: str | None,
        inputs: Inputs,
        *,
        kind: Kind = "document",
        fit: Fit = REFUSED,
        dimensions: int | None = None,
        unit: bool = True,
    ) -> Encoded:
        """Vectors of texts by a dense encoder: float32 [n, dim], or the first `dimensions` numbers of them.

        They are of unit length or, without `unit`, as the net made them. InvalidError where that is lost.
        """
        refuse_huge(inputs, self._settings.limits.document_bytes)
        until = deadline(self.timeout_ms)
        running = await self.running(self.target(model, "dense", ("dense",)))
        net = cast(DenseNet, running.net)
        if dimensions is not None:
            refuse_dimensions(net.name, net.dim, dimensions)
        if not (unit or net.normalizes):
            raise InvalidError(f"vectors of {net.name} are given at unit length only: leave normalize out")
        made = await read(running, self.workers, inputs, kind, fit, until)
        if dimensions is None:
            return made
        return Encoded(narrowed(made.rows, dimensions, unit=unit), made.tokens)

    async def embed_sparse(
        self, model: str | None, inputs: Inputs, *, kind: Kind = "document", fit: Fit = REFUSED
    ) -> Csr:
        """The vocabulary entries that each text weighs, by a sparse encoder."""
        refuse_huge(inputs, self._settings.limits.document_bytes)
        until = deadline(self.timeout_ms)
        running = await self.running(self.target(model, "sparse", ("sparse",)))
        made = await read(running, self.workers, inputs, kind, fit, until)
        net = cast(SparseNet, running.net)
        return await self.workers.run(lambda: net.finish(concatenate(list(made.rows)), kind))

    async def score(
        self,
        model: str | None,
        query: str,
        documents: Sequence[str],
        *,
        whole: bool = False,
        most: int | None = None,
        end: End = "right",
    ) -> Scored:
        """How well each text answers a question, by any net; no more of it than `most` tokens is read.

        Texts that are too long are cut at `end`; InvalidError where the net chooses what it reads of them.
        """
        pairs = [(query, text) for text in documents]
        return await self.score_pairs(model, pairs, whole=whole, most=most, end=end)

    async def score_pairs(
        self,
        model: str | None,
        pairs: Sequence[tuple[str, str]],
        *,
        whole: bool = False,
        most: int | None = None,
        end: End = "right",
    ) -> Scored:
        """The same of pairs of a question and a text, at least one."""
        questions, texts = zip(*pairs, strict=True)
        refuse_huge(questions, self._settings.limits.document_bytes, "question")
        refuse_huge(texts, self._settings.limits.document_bytes)
        until = deadline(self.timeout_ms)
        wanted = self.target(model, self.reranker)
        running = await self.running(wanted)
        if most is not None:
            pairs = await self.workers.run(clipped, running.net, pairs, most)
        if end == "left":
            pairs = await self._ends(wanted, running, pairs)
        scorer = SCORERS[wanted.served](running, self.workers)
        return await score_pairs(scorer, pairs, until, whole=whole)

    async def info(self, model: str | None) -> ModelInfo:
        """What is served under a name, by default for dense embeddings. The net is loaded for it."""
        wanted = self.target(model, "dense")
        return model_info(wanted, self.weights(wanted), await self.running(wanted), self._settings)

    async def _ends(
        self, wanted: Target, running: Running, pairs: Sequence[tuple[str, str]]
    ) -> Sequence[tuple[str, str]]:
        """The same pairs with no more of a text than the net reads, from its end."""
        if wanted.served not in ALONE:
            raise InvalidError(
                f"texts are cut on the left for {', '.join(ALONE)}, and not for {wanted.served}"
            )
        reader, texts = cast(Reader, running.net), [text for _, text in pairs]
        ends = await self.workers.run(fitted, reader, texts, "document", None, "left")
        return [(query, end) for (query, _), end in zip(pairs, ends, strict=True)]

    async def running(self, wanted: Target) -> Running:
        """The net of a target, loaded. EncoderError if it cannot be."""
        return await self.nets.get(wanted.role, self.weights(wanted), None)
