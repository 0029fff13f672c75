"""Scores of pairs as vLLM's clients ask for them."""

import time
from typing import Annotated, Any, Literal, Self

from fastapi import APIRouter
from pydantic import ConfigDict, Field, PlainValidator, model_validator
from starlette.requests import Request
from starlette.responses import Response
from typing_extensions import TypedDict

from service import limits
from service.guards import unless_gone
from service.inputs import named
from service.limits import Limit
from service.routes.vendor import ERRORS, VendorRequest
from service.state import Here, json_response
from service.strict_json import StrictRoute

router = APIRouter(tags=["models"], route_class=StrictRoute)

CUT = -1
"""What stands for as many tokens as the model reads."""


def several(value: Any) -> list[str]:
    """A list of texts, even of one. ValueError for anything else, and for none."""
    texts = [value] if isinstance(value, str) else value
    if isinstance(texts, list) and texts and all(isinstance(each, str) for each in texts):
        return texts
    raise ValueError("give a text, or a list of texts with one at least")


_List = Annotated[list[str], Field(min_length=1), Limit("inputs")]
Texts = Annotated[
    Annotated[list[str], Limit("inputs")] | None, PlainValidator(several, json_schema_input_type=str | _List)
]
"""The type of a field that may be left out; null is not taken."""

NAMES = ("text_1", "text_2", "queries", "documents")


def _only(*names: str) -> dict[str, Any]:
    """The schema of an object with these of the names and without the others."""
    return {"required": list(names), "properties": {name: False for name in NAMES if name not in names}}


class ScoreRequest(VendorRequest):
    """Pairs, under either of two pairs of names: of one question and each text, or of the first question and
    the first text, the second and the second, and so on.
    """

    model_config = ConfigDict(
        json_schema_extra={
            "if": {"required": ["text_1"]},
            "then": _only("text_1", "text_2"),
            "else": _only("queries", "documents"),
        }
    )

    text_1: Texts = Field(None, description="One question, or as many as there are texts.")
    text_2: Texts = Field(None, description="Texts.")
    queries: Texts = Field(None, description="`text_1` by another name.")
    documents: Texts = Field(None, description="`text_2` by another name.")
    model: str | None = None
    truncate_prompt_tokens: Annotated[int, Field(ge=1)] | Literal[-1] | None = Field(
        None,
        description="Cut texts to so many tokens, or with -1 where the model's reach ends; by default those "
        "that are longer are refused.",
    )
    use_activation: bool | None = Field(
        None, description="Whether a classifier's scores are between 0 and 1, as by default, or logits."
    )

    @model_validator(mode="after")
    def _paired(self) -> Self:
        given = tuple(name for name in NAMES if getattr(self, name))
        if given not in (NAMES[:2], NAMES[2:]):
            raise ValueError("give text_1 and text_2, or queries and documents, and none of the other two")
        first, second = map(len, self._both())
        if first not in (1, second):
            raise ValueError(f"{first} questions for {second} texts: give one question, or as many as texts")
        return self

    def pairs(self) -> list[tuple[str, str]]:
        """A question and a text each."""
        questions, texts = self._both()
        return list(zip(questions * (len(texts) // len(questions)), texts, strict=True))

    def names(self) -> tuple[str, str]:
        """The names under which the questions and the texts came."""
        return NAMES[:2] if self.text_1 else NAMES[2:]

    def _both(self) -> tuple[list[str], list[str]]:
        return self.text_1 or self.queries or [], self.text_2 or self.documents or []


class ScoreResult(TypedDict):
    """The score of one pair."""

    index: int
    object: Literal["score"]
    score: float


class ScoreUsage(TypedDict):
    """Tokens that were read; none were written."""

    prompt_tokens: int
    total_tokens: int
    completion_tokens: int


class ScoreResponse(TypedDict):
    """Scores, in the order of the pairs; `created` is in seconds of the epoch."""

    id: str
    object: Literal["list"]
    created: int
    model: str
    data: list[ScoreResult]
    usage: ScoreUsage


@router.post(
    "/score",
    response_model=ScoreResponse,
    responses=ERRORS,
    summary="Score pairs of texts (vLLM)",
)
async def score(body: ScoreRequest, request: Request, here: Here) -> Response:
    """Say how well texts answer questions: from 0 to 1 by a classifier, else as the model measures it."""
    limits.check(body, here.settings.limits)
    most = body.truncate_prompt_tokens
    work = here.endpoints.score_pairs(
        body.model, body.pairs(), whole=most is None, most=None if most == CUT else most
    )
    question, text = body.names()
    with named(question=question, text=text):
        scored = await unless_gone(request, work)
    activated = scored.scale == "logit" and body.use_activation is not False
    scores = scored.unit() if activated else scored.scores
    data = [{"index": n, "object": "score", "score": each} for n, each in enumerate(scores.tolist())]
    usage = {"prompt_tokens": scored.tokens, "total_tokens": scored.tokens, "completion_tokens": 0}
    answer = {
        "id": f"score-{request.state.request_id}",
        "object": "list",
        "created": int(time.time()),
        "model": body.model or here.endpoints.reranker,
        "data": data,
        "usage": usage,
    }
    return json_response(answer)
