"""Embeddings, and which models there are, as OpenAI's clients ask for them."""

import base64
from typing import Literal

from fastapi import APIRouter
from pydantic import ConfigDict, Field
from starlette.requests import Request
from starlette.responses import Response
from typing_extensions import TypedDict

from service import limits
from service.embedding import CUT, REFUSED, Fit
from service.guards import unless_gone
from service.inputs import TextsOrIds, named, refuse_empty
from service.routes.vendor import ERRORS, VendorRequest
from service.state import Here, json_response
from service.strict_json import StrictRoute
from service.types import Scores

router = APIRouter(tags=["models"], route_class=StrictRoute)


class EmbeddingsRequest(VendorRequest):
    """Texts to encode."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"input": ["what pulls the tide"]}]})

    input: TextsOrIds = Field(description="A text, several, or token ids of the model's own vocabulary.")
    model: str | None = None
    encoding_format: Literal["float", "base64"] = Field(
        "float", description="`base64`: the numbers as little-endian float32."
    )
    dimensions: int | None = Field(None, ge=1, description="Keep the first so many numbers, at unit length.")
    truncate_prompt_tokens: int | None = Field(
        None,
        ge=-1,
        description="Cut texts to so many tokens, -1: to as many as the model reads. Else longer ones are "
        "refused.",
    )

    def fit(self) -> Fit:
        """What becomes of texts that are too long."""
        most = self.truncate_prompt_tokens
        return REFUSED if most is None else CUT if most == -1 else Fit("right", most)


class TextEmbedding(TypedDict):
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
    data: list[TextEmbedding]
    model: str
    usage: Usage


class Model(TypedDict):
    """Something that `model` may be."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: Literal["winnow"]


class ModelList(TypedDict):
    """All of these."""

    object: Literal["list"]
    data: list[Model]


@router.get("/v1/models", response_model=ModelList, summary="List models (OpenAI)")
async def list_models(here: Here) -> Response:
    """What `model` may be in requests to embed, rerank and score. `created` is 0: nobody wrote it down."""
    found = [Model(id=name, object="model", created=0, owned_by="winnow") for name in here.endpoints.usable()]
    return json_response(ModelList(object="list", data=found))


@router.post(
    "/v1/embeddings",
    response_model=EmbeddingsResponse,
    responses=ERRORS,
    summary="Embed texts (OpenAI)",
)
async def create_embeddings(body: EmbeddingsRequest, request: Request, here: Here) -> Response:
    """Vectors of unit length by the dense encoder."""
    limits.check(body, here.settings.limits)
    refuse_empty("input", body.input)
    work = here.endpoints.embed(body.model, body.input, fit=body.fit(), dimensions=body.dimensions)
    with named(text="input"):
        made = await unless_gone(request, work)
    encoded = _base64(made.rows) if body.encoding_format == "base64" else list(made.rows)
    data = [{"object": "embedding", "index": n, "embedding": each} for n, each in enumerate(encoded)]
    usage = {"prompt_tokens": made.tokens, "total_tokens": made.tokens}
    return json_response({"object": "list", "data": data, "model": body.model or "dense", "usage": usage})


def _base64(vectors: Scores) -> list[str]:
    return [base64.b64encode(each.astype("<f4").tobytes()).decode() for each in vectors]
