"""What a request to a model endpoint gives to encode: a text, several, token ids, or several lists of them.

All become a list here, whose items are texts or lists of token ids.
"""

from collections.abc import Iterator, Sequence, Sized
from contextlib import contextmanager
from typing import Annotated, Any, Literal

from pydantic import Field, PlainValidator

from service.errors import EmptyInputError, FieldError, InvalidError, LimitError
from service.limits import Limit, whole_number

Inputs = Sequence[str] | Sequence[Sequence[int]]

Named = Literal["text", "question"]
"""What errors call a text for which each wire has a field of another name; see `named`."""

_Text = Annotated[str, Field(min_length=1)]
_Ids = Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1)]
_Texts = Annotated[list[_Text], Field(min_length=1), Limit("inputs")]
_Lists = Annotated[list[_Ids], Field(min_length=1), Limit("inputs")]


def several(value: Any) -> Inputs:
    """A list of what was given, even of one. ValueError for anything else than the module names."""
    if isinstance(value, str):
        return [value]
    if isinstance(value, list):
        if all(isinstance(each, str) for each in value):
            return value
        if all(isinstance(each, list) for each in value):
            return [_ids(each) for each in value]
        return [_ids(value)]
    raise ValueError(_TAKEN)


def _ids(value: list[Any]) -> list[int]:
    ids = [whole_number(each) for each in value]
    if all(type(each) is int for each in ids):  # True is an int too
        return ids
    raise ValueError(_TAKEN)


_TAKEN = "give a text, a list of texts, a list of token ids, or a list of such lists"

TextsOrIds = Annotated[
    Annotated[list[str], Limit("inputs")] | Annotated[list[list[int]], Limit("inputs")],
    PlainValidator(several, json_schema_input_type=_Text | _Texts | _Ids | _Lists),
]
"""The type of a request's field."""


def refuse_nothing(field: str, value: Sized) -> None:
    """EmptyInputError for a text or a list without anything in it."""
    if not value:
        raise _empty(field, f"{field} is empty")


def refuse_empty(field: str, inputs: Inputs) -> None:
    """The same for a list, and for anything in it."""
    refuse_nothing(field, inputs)
    for number, each in enumerate(inputs):
        if not each:
            raise _empty(field, f"{field} has nothing to encode at position {number}")


def refuse_huge(inputs: Inputs, most: int, field: Named = "text") -> None:
    """LimitError for a text of more bytes than the limit of documents, or as many token ids."""
    for number, each in enumerate(inputs):
        if 4 * len(each) > most:  # a character has four bytes at most
            size, unit = (len(each.encode()), "bytes") if isinstance(each, str) else (len(each), "tokens")
            if size > most:
                raise LimitError("document_bytes", most, size, field, number, unit)


@contextmanager
def named(**fields: str) -> Iterator[None]:
    """Errors about a `text` or a `question` name the field of a request that it came in."""
    try:
        yield
    except InvalidError as error:
        for each in error.errors:
            each["field"] = fields.get(each["field"], each["field"])
        raise


def _empty(field: str, sentence: str) -> EmptyInputError:
    error = FieldError(index=None, field=field, code=EmptyInputError.code, detail=sentence)
    return EmptyInputError(sentence, errors=[error])
