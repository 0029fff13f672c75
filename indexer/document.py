"""What a user gives Winnow to index: an id, a title, a text and free metadata.

A document that validates can be stored, encoded and sent back unchanged: every string is encodable,
every number is finite and fits in 64 bits, and nesting is bounded, so nothing after this border has to
look again. The size of a whole document is limited by whoever reads it from outside, who alone knows the
limit in force.
"""

import math
import unicodedata
from typing import Annotated, Any, Self

import orjson
from pydantic import AfterValidator, AliasChoices, BaseModel, BeforeValidator, ConfigDict, Field, JsonValue

MAX_ID_BYTES = 512
MAX_METADATA_DEPTH = 8
_SMALLEST, _LARGEST = -(2**63), 2**63 - 1


def _encodable(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(
            f"character {error.start} is half of a surrogate pair and cannot be stored"
        ) from error
    return text


def check_id(value: str) -> str:
    """Give `value` back if it can be a document's id; raise ValueError saying why not."""
    if not value:
        raise ValueError("an id must not be empty")
    if len(_encodable(value).encode()) > MAX_ID_BYTES:
        raise ValueError(f"an id must not be longer than {MAX_ID_BYTES} bytes of UTF-8")
    if any(unicodedata.category(character) == "Cc" for character in value):
        raise ValueError("an id must not contain control characters")
    return value


def _check_leaf(value: object, path: str) -> None:
    if isinstance(value, str):
        try:
            _encodable(value)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error
    elif isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{path}: a number must be finite")
    elif isinstance(value, int) and not _SMALLEST <= value <= _LARGEST:
        raise ValueError(f"{path}: an integer must fit in 64 signed bits")


def _children(value: object, path: str) -> list[tuple[object, str]]:
    if isinstance(value, dict):
        for key in value:
            _check_leaf(key, f"{path}: the key {key!r}")
        return [(child, f"{path}.{key}") for key, child in value.items()]
    return [(child, f"{path}[{at}]") for at, child in enumerate(value)] if isinstance(value, list) else []


def _check_metadata(metadata: Any) -> Any:
    """Walk level by level: input may be nested deeper than Python can recurse."""
    level: list[tuple[object, str]] = [(metadata, "metadata")]
    for _ in range(MAX_METADATA_DEPTH):
        level = [child for value, path in level for child in _children(value, path)]
        for value, path in level:
            _check_leaf(value, path)
    if any(isinstance(value, dict | list) for value, _ in level):
        raise ValueError(f"metadata must not be nested deeper than {MAX_METADATA_DEPTH} levels")
    return metadata


_ID_SCHEMA: dict[str, JsonValue] = {
    "minLength": 1,
    "maxLength": MAX_ID_BYTES,
    "pattern": r"^[^\x00-\x1f\x7f-\x9f]+$",
}

DocumentId = Annotated[str, AfterValidator(check_id), Field(json_schema_extra=_ID_SCHEMA)]
Text = Annotated[str, AfterValidator(_encodable)]
Metadata = Annotated[dict[str, JsonValue], BeforeValidator(_check_metadata)]


class Document(BaseModel):
    """One document as accepted. `_id`, as BEIR's files have it, is read as `id`."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        strict=True,
        validate_by_name=True,
        json_schema_extra={
            "examples": [{"id": "tides", "text": "The moon pulls the sea.", "metadata": {"year": 2021}}]
        },
    )

    id: DocumentId = Field(validation_alias=AliasChoices("id", "_id"))
    text: Text
    title: Text = ""
    metadata: Metadata = {}

    def to_json(self) -> bytes:
        """Return the form that is logged and stored: always these four keys, in this order."""
        return orjson.dumps(
            {"id": self.id, "title": self.title, "text": self.text, "metadata": self.metadata}
        )

    @classmethod
    def from_json(cls, payload: bytes) -> Self:
        """Read what `to_json` wrote."""
        return cls.model_validate(orjson.loads(payload))
