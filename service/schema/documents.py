"""Documents put in, shown and deleted."""

from typing import Annotated, Any

from pydantic import Discriminator, Field, Strict, Tag
from typing_extensions import TypedDict

from indexer.document import Document, DocumentId
from service.limits import Limit
from service.schema.common import Request, SomeFilter, either
from service.schema.jobs import JobView

Documents = Annotated[
    Annotated[Document, Tag("one")]
    | Annotated[list[Document], Field(min_length=1), Limit("documents"), Tag("many")],
    either("one", "many"),
]


class DeleteByIds(Request):
    """Delete the documents of these ids."""

    ids: Annotated[tuple[DocumentId, ...], Strict(False), Limit("documents")] = Field(min_length=1)


class DeleteByFilter(Request):
    """Delete the documents that match; to delete all, drop the collection."""

    filter: SomeFilter


DeleteRequest = Annotated[
    Annotated[DeleteByIds, Tag("ids")] | Annotated[DeleteByFilter, Tag("filter")],
    Discriminator(lambda value: "filter" if isinstance(value, dict) and "filter" in value else "ids"),
]


class Superseded(TypedDict):
    """A document that another of the same id came after in the same request; counted from 0, lines from 1."""

    index: int
    id: str


class Rejected(TypedDict):
    """A line that was not taken, counted from 1."""

    line: int
    code: str
    detail: str


class WriteResponse(TypedDict):
    """What was written down durably, and the job that makes it searchable."""

    accepted: int
    superseded: list[Superseded]
    rejected: list[Rejected]
    job: JobView


class DocumentView(TypedDict):
    """A document as it was accepted."""

    id: str
    title: str
    text: str
    metadata: dict[str, Any]
