"""Reranking as Jina's clients ask for it."""

from typing import Annotated, NotRequired

from fastapi import APIRouter
from pydantic import Discriminator, Field, Tag
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


class JinaDocument(VendorRequest):
    """A text as an object."""

    text: str


JinaInput = Annotated[
    Annotated[str, Tag("text")] | Annotated[JinaDocument, Tag("object")],
    Discriminator(lambda value: "object" if isinstance(value, dict) else "text"),
]


class JinaRequest(VendorRequest):
    """Texts to put in order."""

    query: Query
    documents: Annotated[list[JinaInput], Limit("rerank")] = Field(min_length=1)
    model: str | None = None
    top_n: int | None = Field(None, ge=1, description="Only the best so many; all by default.")
    return_documents: bool = Field(True, description="Whether results have the texts too.")


class JinaText(TypedDict):
    """A text of the request."""

    text: str


class JinaResult(TypedDict):
    """One document: its place in the request, and how well it answers, from 0 to 1."""

    index: int
    relevance_score: float
    document: NotRequired[JinaText]


class JinaUsage(TypedDict):
    """Tokens that were read, those of the question once for each time it was."""

    total_tokens: int
    prompt_tokens: int


class JinaResponse(TypedDict):
    """Documents, best first."""

    model: str
    usage: JinaUsage
    results: list[JinaResult]


@router.post(
    "/v1/rerank",
    response_model=JinaResponse,
    responses=ERRORS,
    summary="Rerank texts (Jina)",
)
async def rerank_jina(body: JinaRequest, request: Request, here: Here) -> Response:
    """Order texts by how well they answer a question. Texts are cut where the model's reach ends."""
    limits.check(body, here.settings.limits)
    texts = [each if isinstance(each, str) else each.text for each in body.documents]
    scored = await unless_gone(request, here.endpoints.score(body.model, body.query, texts))
    results: list[JinaResult] = [
        {"index": place, "relevance_score": score} for place, score in ranked(scored.unit(), body.top_n)
    ]
    if body.return_documents:
        for each in results:
            each["document"] = {"text": texts[each["index"]]}
    usage = {"total_tokens": scored.tokens, "prompt_tokens": scored.tokens}
    model = body.model or here.endpoints.reranker
    return json_response({"model": model, "usage": usage, "results": results})
