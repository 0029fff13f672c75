"""The nets as model endpoints ask for them: by the `model` of a request, or the service's default."""

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol, cast

from models import Kind
from models.roles import Role
from service.embedding import Encoded, deadline, encode
from service.errors import ModelError, UnknownTokenError
from service.model_names import SERVED, Served, Target, target
from service.nets import Nets, Running
from service.scorers import CrossScorer, DenseScorer, LateScorer, Scored, Scorer, SparseScorer
from service.settings import Settings
from service.workers import Workers

DEFAULT = "default"


Inputs = Sequence[str] | Sequence[Sequence[int]]

SCORERS: Mapping[Served, Callable[[Running, Workers], Scorer]] = {
    "dense": DenseScorer,
    "sparse": SparseScorer,
    "late": LateScorer,
    "cross": CrossScorer,
}


class Decoder(Protocol):
    """What turns token ids back into text."""

    def text(self, ids: Sequence[int]) -> str:
        """ValueError for ids outside of the vocabulary."""
        ...


class Endpoints:
    """Finds the net that a request means."""

    def __init__(self, settings: Settings, nets: Nets, workers: Workers) -> None:
        self.nets = nets
        self.workers = workers
        self.timeout_ms = settings.model_timeout_ms
        self.reranker = settings.reranker
        self._named = {name: target(text) for name, text in settings.models.items()}
        self._weights = settings.weights()

    def names(self) -> list[str]:
        """What `model` may be."""
        return [*SERVED, *self._named]

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
            raise ModelError(_none(wanted.role))
        return name

    async def embed(
        self,
        model: str | None,
        texts: Inputs,
        *,
        kind: Kind = "document",
        whole: bool = True,
    ) -> Encoded:
        """Vectors of texts, or of token ids, by a dense encoder: float32 [texts, dim], of unit length."""
        until = deadline(self.timeout_ms)
        running = await self.running(self.target(model, "dense", ("dense",)))
        wanted = await self.workers.run(_texts, cast(Decoder, running.net), texts)
        return await encode(running, self.workers, wanted, kind, until, whole=whole)

    async def score(
        self, model: str | None, query: str, documents: Sequence[str], *, whole: bool = False
    ) -> Scored:
        """How well each text answers a question, by any net."""
        until = deadline(self.timeout_ms)
        wanted = self.target(model, self.reranker)
        scorer = SCORERS[wanted.served](await self.running(wanted), self.workers)
        return await scorer.score(query, documents, until, whole=whole)

    async def running(self, wanted: Target) -> Running:
        """The net of a target, loaded. EncoderError if it cannot be."""
        return await self.nets.get(wanted.role, self.weights(wanted), None)


def _texts(decoder: Decoder, inputs: Inputs) -> list[str]:
    try:
        return [each if isinstance(each, str) else decoder.text(each) for each in inputs]
    except ValueError as error:
        raise UnknownTokenError(str(error)) from error


def _none(role: Role) -> str:
    return f"no {role} model is configured: set WINNOW_{role.upper()}_ENCODER to the name of its weights"
