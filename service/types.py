"""The values that flow through a pipeline: hits from stage to stage, and the search they answer.

A hit is a passage number (`seq`), which no merge changes, so a ranking does not depend on how passages lie in
segments. Order is everywhere score descending, then `seq` ascending. A stage takes the search and the hits so
far and gives hits; it may leave notes about what it could not do.
"""

import asyncio
import time
from abc import abstractmethod
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, NotRequired, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator
from typing_extensions import TypedDict

from indexer.segment.manifest import Component
from service.errors import DeadlineError
from service.limits import whole_numbers
from service.snapshot import Snapshot
from service.workers import Workers

if TYPE_CHECKING:  # it brings torch
    from models.in_context.items import KeyQuestion
    from service.cross import CrossReranker
    from service.in_context import Reranker

Seqs = NDArray[np.int64]
Scores = NDArray[np.float32]
Mask = NDArray[np.bool_]
Terms = tuple[NDArray[np.int32], Scores]  # vocabulary entries, ascending, and their weights
Pieces = Callable[[Sequence[str]], list[NDArray[np.int32]]]  # different ones of each text; for any thread
R = TypeVar("R")

Account = TypedDict(
    "Account",
    {
        "stage": str,
        "status": str,
        "reason": str | None,
        "ms": float,
        "in": int,
        "out": int,
        "inputs": list[list["Account"]],
        "scored": NotRequired[int],
        "cut": NotRequired[int],
    },
)
Account.__doc__ = (
    "What became of a stage: ran, degraded (on less than was asked) or skipped, and what it cost. `scored`: "
    "how many of the hits a rescoring stage had to look at; `cut`: how many of these are longer than the "
    "model reads."
)


@dataclass(frozen=True, slots=True)
class Hits:
    """Passages, best first. `raw` has every retriever's own score for each, NaN where it did not find it."""

    seqs: Seqs
    scores: Scores
    raw: Mapping[str, Scores]

    def __len__(self) -> int:
        return len(self.seqs)

    def take(self, rows: NDArray[np.intp] | slice) -> "Hits":
        """These rows, in this order."""
        raw = {name: scores[rows] for name, scores in self.raw.items()}
        return Hits(self.seqs[rows], self.scores[rows], raw)

    def best(self, k: int) -> "Hits":
        """The k best in order: score descending, then seq ascending."""
        return self.take(np.lexsort((self.seqs, -self.scores))[:k])


class Counts(TypedDict, total=False):
    """What an account says beyond times and numbers of hits."""

    scored: int
    cut: int


@dataclass(frozen=True, slots=True)
class Notes:
    """What a stage says of its own run beside its hits."""

    reasons: list[str] = field(default_factory=list)
    inputs: list[list[Account]] = field(default_factory=list)
    counts: Counts = field(default_factory=Counts)


class Term(TypedDict):
    """What a term has to do with a hit: its weights in the question and in the passage, and their product,
    which is its share of the score.
    """

    term: str
    query: float
    passage: float
    score: float


class Match(TypedDict):
    """A token of the question and the passage's tokens that met it best: those that one vector stands for,
    and the cosine of the two vectors. A late-interaction score is the mean of these cosines.
    """

    query_token: str
    passage_tokens: list[str]
    similarity: float


class Attended(TypedDict):
    """A token of a passage, and its share of the attention that speaks for the passage."""

    token: str
    share: float


class ReadWindow(TypedDict):
    """A part of a document that a cross-encoder read, characters [start, end) of its text, and its score."""

    start: int
    end: int
    score: float


class QuestionTokens(NamedTuple):
    """What a late-interaction encoder makes of a question: float32 [tokens, dim] of unit length and, where it
    is a dense encoder too, the vector that this makes of it.
    """

    vectors: Scores
    sentence: Scores | None


class Nets(Protocol):
    """Where a stage has a question encoded.

    Everything raises StageError if an encoder cannot be had, is overloaded, or has another fingerprint than
    that of the passages.
    """

    async def query_vector(self, encoder: str, fingerprint: str | None, query: str) -> Scores:
        """float32 [dim], unit length, by the dense encoder of this name."""
        ...

    async def query_terms(self, encoder: str, fingerprint: str | None, query: str) -> Terms:
        """Vocabulary entries and their weights, by the sparse encoder of this name."""
        ...

    async def query_tokens(self, encoder: str, fingerprint: str | None, query: str) -> "QuestionTokens":
        """By the late-interaction encoder of this name."""
        ...

    async def pooled(self, encoder: str, fingerprint: str | None) -> str | None:
        """Fingerprint of the dense encoder whose vector of a question comes with its tokens, if any does."""
        ...

    async def reranker(self, name: str, fingerprint: str | None) -> "Reranker":
        """The language model of this name, which reads in context."""
        ...

    async def key_question(
        self, name: str, fingerprint: str | None, query: str
    ) -> "tuple[Reranker, KeyQuestion]":
        """That language model, and a question as it meets stored keys."""
        ...

    async def cross(self) -> "CrossReranker":
        """The service's cross-encoder; NotConfiguredError where it has none."""
        ...

    async def pieces(self, encoder: str, fingerprint: str | None) -> Pieces:
        """How the sparse encoder of this name cuts texts into word pieces."""
        ...

    def idf_table(self, name: str, fingerprint: str | None, encoder: str) -> Scores:
        """float32 [vocabulary], what a table of the settings gives to the entries of a sparse encoder.

        For worker threads, once the encoder has been asked for; the first call reads a file.
        """
        ...

    def words(self, encoder: str, terms: NDArray[np.int32]) -> list[str]:
        """Vocabulary entries of a sparse encoder that has been asked for, as a reader knows them."""
        ...

    def question_tokens(self, encoder: str, query: str) -> list[str]:
        """What each token vector of a question stands for, by a late-interaction encoder that was asked."""
        ...

    def token_words(self, encoder: str, ids: NDArray[np.int32]) -> list[str]:
        """Vocabulary entries of a late-interaction encoder that has been asked for."""
        ...


@dataclass(frozen=True, slots=True)
class Search:
    """One question put to one snapshot, and everything a stage needs to answer it.

    `allowed` has a mask over the rows of each segment, None where every row may be found. `deadline` is on
    the monotonic clock. `questions` keeps what stages made of the question, by stage, for explanations;
    `ahead` what nets are making of it.
    """

    query: str
    snapshot: Snapshot
    allowed: tuple[Mask | None, ...]
    deadline: float
    nets: Nets
    workers: Workers
    notes: Notes = field(default_factory=Notes)
    questions: dict[str, Any] = field(default_factory=dict)
    ahead: dict[str, asyncio.Task[Any]] = field(default_factory=dict)

    def within(self, budget_ms: int | None) -> "Search":
        """The same search with fresh notes, and less time if `budget_ms` says so."""
        budget = float("inf") if budget_ms is None else time.monotonic() + budget_ms / 1000
        return replace(self, deadline=min(self.deadline, budget), notes=Notes())

    def may_find(self, seqs: Seqs) -> Mask:
        """Which of these passages are there, alive and match the filter."""
        there = self.snapshot.holds(seqs)
        parts, rows = self.snapshot.locate(seqs[there])
        found = np.ones(len(parts), np.bool_)
        for part, mask in enumerate(self.allowed):
            if mask is not None:
                inside = parts == part
                found[inside] = mask[rows[inside]]
        there[there] = found
        return there

    def check_time(self) -> None:
        """For loops in worker threads, which nobody can interrupt: DeadlineError once time is up."""
        if time.monotonic() > self.deadline:
            raise DeadlineError("the time for this stage was up before it had looked everywhere")

    def foresee(self, name: str, make: Callable[[], Coroutine[Any, Any, R]]) -> asyncio.Task[R]:
        """Have a net begin with the question, once a search however many stages want what it makes."""
        if name not in self.ahead:
            self.ahead[name] = asyncio.create_task(make())
        return self.ahead[name]

    async def forget(self) -> None:
        """Stop what nets are still making: nobody waits for it any more."""
        for task in self.ahead.values():
            task.cancel()
        await asyncio.gather(*self.ahead.values(), return_exceptions=True)

    @asynccontextmanager
    async def in_time(self) -> AsyncIterator[None]:
        """Interrupt an await at the deadline, with a DeadlineError."""
        try:
            async with asyncio.timeout(self.deadline - time.monotonic()):
                yield
        except TimeoutError:
            raise DeadlineError("the time for this stage was up before it had finished") from None

    async def in_thread(self, work: Callable[..., R], *args: Any) -> R:
        """Run `work` in a worker thread; give up waiting at the deadline."""
        async with self.in_time():
            return await self.workers.run(work, *args)


class Stage(BaseModel):
    """Parameters of a step and the step itself. The same object is the wire schema."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        strict=True,
        allow_inf_nan=False,
        json_schema_extra=lambda schema: schema.setdefault("required", []).append("stage"),
    )

    _whole_numbers = model_validator(mode="before")(whole_numbers)

    starts: ClassVar[bool] = False  # finds hits itself, so it comes first and only first

    stage: str
    budget_ms: int | None = Field(None, ge=1, description="Time this stage may take, within the search's.")

    def begin(self, search: Search) -> None:
        """Begin with what needs no hits; called before the first stage of the pipeline runs."""

    @abstractmethod
    async def __call__(self, search: Search, hits: Hits) -> Hits:
        """Hits from hits; a stage that starts a pipeline ignores those it is given."""

    @property
    def needs(self) -> Component | None:
        """The component of the collection that this stage reads; most declare it as a ClassVar."""
        return None

    @property
    def label(self) -> str:
        """What this stage's scores and explanations are called: its name, or one of several."""
        return self.stage

    @property
    def floor(self) -> float | None:
        """The lowest score that this stage can give to any passage; None where none is known."""
        return None

    @property
    def scores_any(self) -> bool:
        """Whether `score` is there, for this stage as it is set."""
        return False

    async def score(self, search: Search, seqs: Seqs) -> Scores:
        """This stage's scores of allowed passages, in their order, whether it would have found them or not.

        The same bits as in the hits it finds. StageError as of a run; TypeError unless `scores_any`.
        """
        raise TypeError(f"stage {self.stage!r} cannot score what it did not find")
