from typing import Annotated

import pytest
from pydantic import BaseModel, TypeAdapter

from service.errors import LimitError
from service.limits import Limit, check, within
from service.settings import Limits


class Inner(BaseModel):
    k: Annotated[int, Limit("candidates")] = 1


class Outer(BaseModel):
    query: Annotated[str, Limit("query_bytes")] = ""
    top_k: Annotated[int, Limit("top_k")] | None = None
    inner: tuple[tuple[Inner, ...], ...] = ()
    many: Annotated[tuple[int, ...], Limit("searches")] = ()


LIMITS = Limits(query_bytes=4, top_k=5, candidates=6, searches=2)


def test_values_up_to_their_limits_pass():
    check(Outer(query="éé", top_k=5, inner=((Inner(k=6),),), many=(100, 200)), LIMITS)
    check(Outer(), LIMITS)


@pytest.mark.parametrize(
    ("request_", "sentence"),
    [
        (Outer(query="ééa"), "query is 5; the limit 'query_bytes' is 4"),
        (Outer(top_k=6), "top_k is 6; the limit 'top_k' is 5"),
        (Outer(inner=((Inner(), Inner(k=7)),)), "inner.0.1.k is 7; the limit 'candidates' is 6"),
        (Outer(many=(1, 2, 3)), "many is 3; the limit 'searches' is 2"),
        (Outer(top_k=10**4000), "top_k is a number of more than 18 digits"),
    ],
)
def test_the_first_value_beyond_its_limit_is_named_with_it(request_: Outer, sentence: str):
    with pytest.raises(LimitError) as error:
        check(request_, LIMITS)
    assert error.value.detail.startswith(sentence)
    assert error.value.errors[0]["field"] == sentence.split(" ")[0]


def test_a_number_from_elsewhere():
    within("top_k", 5, LIMITS)
    with pytest.raises(LimitError, match="top_k"):
        within("top_k", 6, LIMITS)


def test_the_schema_says_which_limit_it_is():
    schema = TypeAdapter(Outer).json_schema()
    assert schema["properties"]["query"]["x-limit"] == "query_bytes"
    assert schema["properties"]["top_k"]["anyOf"][0]["x-limit"] == "top_k"
