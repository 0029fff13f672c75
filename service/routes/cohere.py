"""Reranking as Cohere's clients ask for it, in the second version of its API."""

from typing import Annotated

from fastapi import APIRouter
from pydantic import Field
from starlette.requests import Request
from starlette.responses import Response
from typing_extensions import TypedDict

from service import limits
from service.guards import unless_gone
from service.limits import Limit
from service.ranking import ranked
from service.routes.vendor import ERRORS, VendorRequest
from service.schema.common import Query
from service.state import Here, json_response
from service.strict_json import StrictRoute

router = APIRouter(tags=["models"], route_class=StrictRoute)


class CohereRequest(VendorRequest):
    """Texts to put in order."""

    query: Query
    documents: Annotated[list[str], Limit("rerank")] = Field(min_length=1)
    model: str | None = None
    top_n: int | None = Field(None, ge=1, description="Only the best so many; all by default.")
    max_tokens_per_doc: int | None = Field(
        None,
        ge=1,
        description="How much is read of a document, in the model's own tokens; all it can by default.",
    )


class CohereResult(TypedDict):
    """One document: its place in the request, and how well it answers, from 0 to 1."""

    index: int
    relevance_score: float


class CohereVersion(TypedDict):
    """The version that was asked for."""

    version: str


class CohereMeta(TypedDict):
    """About the answer."""

    api_version: CohereVersion


class CohereResponse(TypedDict):
    """Documents, best first; `id` is that of the request."""

    id: str
    results: list[CohereResult]
    meta: CohereMeta


@router.post(
    "/v2/rerank",
    response_model=CohereResponse,
    responses=ERRORS,
    summary="Rerank texts (Cohere)",
)
async def rerank_cohere(body: CohereRequest, request: Request, here: Here) -> Response:
    """Order texts by how well they answer a question. Texts are cut where the model's reach ends."""
    limits.check(body, here.settings.limits)
    work = here.endpoints.score(body.model, body.query, body.documents, most=body.max_tokens_per_doc)
    scored = await unless_gone(request, work)
    results = [
        {"index": place, "relevance_score": score} for place, score in ranked(scored.unit(), body.top_n)
    ]
    return json_response(
        {"id": request.state.request_id, "results": results, "meta": {"api_version": {"version": "2"}}}
    )
