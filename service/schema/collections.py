"""Collections."""

from typing import Annotated, Any

from pydantic import ConfigDict, Field, Strict, model_validator
from typing_extensions import TypedDict

from indexer.segment.manifest import COMPONENTS, RETRIEVING, CollectionSchema, Component
from service.limits import whole_numbers


class CollectionRequest(CollectionSchema):
    """How to index a collection; everything has a default."""

    model_config = ConfigDict(
        strict=True,
        json_schema_extra={"examples": [{}, {"language": "de", "components": ["bm25", "dense"]}]},
    )

    _whole_numbers = model_validator(mode="before")(whole_numbers)

    components: Annotated[tuple[Component, ...], Strict(False)] = Field(
        COMPONENTS, min_length=1, json_schema_extra=RETRIEVING
    )


class SegmentView(TypedDict):
    """One segment of a collection. `pruned_rows` are passages without a sparse vector for want of quality."""

    name: str
    rows: int
    dead_rows: int
    pruned_rows: int
    documents: int
    bytes: int


class CollectionView(TypedDict):
    """A collection, its counts of what is alive, and how far it is behind its log."""

    name: str
    schema: dict[str, Any]
    generation: int
    documents: int
    passages: int
    queued: int | None
    segments: list[SegmentView]


class CollectionList(TypedDict):
    """All collections, by name."""

    collections: list[CollectionView]
