"""Embeddings, sparse embeddings and reranking as Text Embeddings Inference (TEI) serves them.

A TEI process serves one model, and here requests may say which: `model` is ours, and the service's own
choice by default. Texts that are too long are refused unless a request has `truncate`, as they are there.
"""

from typing import Annotated, Literal, NotRequired

from fastapi import APIRouter
from pydantic import Field
from starlette.requests import Request
from starlette.responses import Response
from typing_extensions import TypedDict

from models import Kind
from models.csr import Csr
from service import limits
from service.embedding import REFUSED, End, Fit
from service.errors import BusyError, DeadlineError, EmptyInputError, ModelError, UnavailableError
from service.guards import unless_gone
from service.inputs import TextsOrIds, refuse_empty, refuse_nothing
from service.limits import Limit
from service.model_info import ModelInfo
from service.ranking import ranked
from service.routes.vendor import VendorRequest
from service.state import Here, json_response, problems
from service.strict_json import StrictRoute

router = APIRouter(tags=["models"], route_class=StrictRoute)

ERRORS = problems(EmptyInputError, ModelError, BusyError, UnavailableError, DeadlineError)


class TeiRequest(VendorRequest):
    """What all of these have in common."""

    model: str | None = Field(None, description="Ours: a name of a model; the service's choice by default.")
    truncate: bool | None = Field(None, description="Whether texts that are too long are cut, or refused.")
    truncation_direction: End = Field("right", description="The end at which they are cut.")


class EmbedRequest(TeiRequest):
    """Texts to encode."""

    inputs: TextsOrIds = Field(description="A text, several, or token ids of the model's own vocabulary.")
    prompt_name: Literal["query", "document", "passage", "corpus"] | None = Field(
        None,
        description="What the texts are: questions, or passages by any of the other names and by default.",
    )

    def kind(self) -> Kind:
        """What the texts are to the net."""
        return "query" if self.prompt_name == "query" else "document"

    def fit(self) -> Fit:
        """What becomes of texts that are too long."""
        return Fit(self.truncation_direction) if self.truncate else REFUSED


class EmbedDenseRequest(EmbedRequest):
    """Texts to encode as vectors."""

    normalize: bool = Field(True, description="At unit length; else as the model itself gives them.")
    dimensions: int | None = Field(None, ge=1, description="Keep the first so many numbers.")


class RerankRequest(TeiRequest):
    """Texts to put in order."""

    query: Annotated[str, Limit("query_bytes")] = Field(json_schema_extra={"minLength": 1})
    texts: Annotated[list[str], Limit("rerank")] = Field(json_schema_extra={"minItems": 1})
    raw_scores: bool = Field(False, description="Scores as the model gives them, not from 0 to 1.")
    return_text: bool = False


class SparseValue(TypedDict):
    """A vocabulary entry and its weight."""

    index: int
    value: float


class Rank(TypedDict):
    """A text by its place in the request."""

    index: int
    score: float
    text: NotRequired[str]


@router.post("/embed", response_model=list[list[float]], responses=ERRORS, summary="Embed texts (TEI)")
async def embed(body: EmbedDenseRequest, request: Request, here: Here) -> Response:
    """A vector of each text, in order, by the dense encoder."""
    limits.check(body, here.settings.limits)
    refuse_empty("inputs", body.inputs)
    work = here.endpoints.embed(
        body.model,
        body.inputs,
        kind=body.kind(),
        fit=body.fit(),
        dimensions=body.dimensions,
        unit=body.normalize,
    )
    return json_response(list((await unless_gone(request, work)).rows))


@router.post(
    "/embed_sparse",
    response_model=list[list[SparseValue]],
    responses=ERRORS,
    summary="Weigh the vocabulary for texts (TEI)",
)
async def embed_sparse(body: EmbedRequest, request: Request, here: Here) -> Response:
    """The vocabulary entries that each text weighs, ascending, in the order of the texts."""
    limits.check(body, here.settings.limits)
    refuse_empty("inputs", body.inputs)
    work = here.endpoints.embed_sparse(body.model, body.inputs, kind=body.kind(), fit=body.fit())
    found = await unless_gone(request, work)
    return json_response(await here.workers.run(_entries, found))


@router.post("/rerank", response_model=list[Rank], responses=ERRORS, summary="Rerank texts (TEI)")
async def rerank_tei(body: RerankRequest, request: Request, here: Here) -> Response:
    """Texts by how well they answer a question, best first; of equal ones the earlier."""
    limits.check(body, here.settings.limits)
    refuse_nothing("query", body.query)
    refuse_nothing("texts", body.texts)
    end = body.truncation_direction if body.truncate else "right"
    work = here.endpoints.score(body.model, body.query, body.texts, whole=not body.truncate, end=end)
    scored = await unless_gone(request, work)
    shown = scored.scores if body.raw_scores else scored.unit()
    ranks = [Rank(index=place, score=float(shown[place])) for place, _ in ranked(scored.scores)]
    if body.return_text:
        for rank in ranks:
            rank["text"] = body.texts[rank["index"]]
    return json_response(ranks)


@router.get(
    "/info",
    response_model=ModelInfo,
    responses=problems(ModelError, UnavailableError),
    summary="What a model is and takes (TEI)",
)
async def get_model_info(here: Here, model: str | None = None) -> Response:
    """The service's own choice for dense embeddings, or another `model`."""
    return json_response(await here.endpoints.info(model))


def _entries(vectors: Csr) -> list[list[SparseValue]]:
    return [
        [
            SparseValue(index=term, value=weight)
            for term, weight in zip(terms.tolist(), weights.tolist(), strict=True)
        ]
        for terms, weights in vectors
    ]
