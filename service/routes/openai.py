"""Embeddings as OpenAI's clients ask for them."""

import base64
from typing import Annotated, Literal, cast

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import Request
from starlette.responses import Response
from typing_extensions import TypedDict

from service import limits
from service.endpoints import Inputs
from service.errors import BusyError, ModelError, UnavailableError
from service.guards import unless_gone
from service.limits import Limit
from service.state import Here, json_response, problems
from service.strict_json import StrictRoute
from service.types import Scores

router = APIRouter(tags=["models"], route_class=StrictRoute)


class EmbeddingsRequest(BaseModel):
    """Texts to encode; fields that are not here are ignored."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    input: Annotated[str | list[str] | list[int] | list[list[int]], Limit("inputs")] = Field(
        description="A text, several, or token ids of the model's own vocabulary."
    )
    model: str | None = None
    encoding_format: Literal["float", "base64"] = Field(
        "float", description="`base64`: the numbers as little-endian float32."
    )
    dimensions: int | None = Field(None, ge=1, description="Keep the first so many numbers, at unit length.")


class Embedding(TypedDict):
    """One text's vector."""

    object: Literal["embedding"]
    index: int
    embedding: list[float] | str


class Usage(TypedDict):
    """Tokens that were read."""

    prompt_tokens: int
    total_tokens: int


class EmbeddingsResponse(TypedDict):
    """A vector for each text, in order."""

    object: Literal["list"]
    data: list[Embedding]
    model: str
    usage: Usage


@router.post(
    "/v1/embeddings",
    response_model=EmbeddingsResponse,
    responses=problems(ModelError, BusyError, UnavailableError),
    summary="Embed texts (OpenAI)",
)
async def embeddings(body: EmbeddingsRequest, request: Request, here: Here) -> Response:
    """Vectors of unit length by the dense encoder."""
    limits.check(body, here.settings.limits)
    made = await unless_gone(request, here.endpoints.embed(body.model, _inputs(body.input)))
    encoded = _base64(made.rows) if body.encoding_format == "base64" else list(made.rows)
    data = [{"object": "embedding", "index": n, "embedding": each} for n, each in enumerate(encoded)]
    usage = {"prompt_tokens": made.tokens, "total_tokens": made.tokens}
    return json_response({"object": "list", "data": data, "model": body.model or "dense", "usage": usage})


def _inputs(given: str | list[str] | list[int] | list[list[int]]) -> Inputs:
    """Several inputs, even of one."""
    if isinstance(given, str):
        return [given]
    return cast(Inputs, [given] if given and isinstance(given[0], int) else given)


def _base64(vectors: Scores) -> list[str]:
    return [base64.b64encode(each.astype("<f4").tobytes()).decode() for each in vectors]
