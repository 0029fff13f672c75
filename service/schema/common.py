"""What several requests have in common."""

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, WithJsonSchema, model_validator

from service.limits import SCHEMA, Limit, whole_numbers
from service.stages import Pipeline

JsonFilter = Annotated[dict[str, Any], WithJsonSchema({SCHEMA: "Filter"})]
"""A filter as `indexer.filters` reads it; its schema is written by hand in `openapi.py`."""


SomeFilter = Annotated[
    dict[str, Any], Field(min_length=1), WithJsonSchema({SCHEMA: "Filter", "minProperties": 1})
]


class Request(BaseModel):
    """Base of what clients send."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    _whole_numbers = model_validator(mode="before")(whole_numbers)


def either(single: str, several: str) -> Discriminator:
    """Which of two a value is: a list or a tuple is `several`."""
    return Discriminator(lambda value: several if isinstance(value, list | tuple) else single)


Pipelines = Annotated[
    Annotated[str, Field(min_length=1, max_length=100), Tag("name")] | Annotated[Pipeline, Tag("stages")],
    either("name", "stages"),
]


Query = Annotated[str, Field(min_length=1), Limit("query_bytes")]
