from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from service import limits
from service.errors import EmptyInputError, LimitError
from service.inputs import TextsOrIds, refuse_empty, refuse_huge
from service.settings import Limits


class Asked(BaseModel):
    input: TextsOrIds


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("a", ["a"]),
        (["a", "b"], ["a", "b"]),
        ([7, 8], [[7, 8]]),
        ([[7, 8], [9]], [[7, 8], [9]]),
        ([7.0, 8], [[7, 8]]),  # numbers without a fraction are whole ones in JSON
        ([], []),
    ],
)
def test_all_that_may_be_given_becomes_a_list(given: Any, expected: Any):
    assert Asked(input=given).input == expected


@pytest.mark.parametrize(
    "given", [None, 7, {"text": "a"}, ["a", 7], [["a"]], [7.5], [True], [[7], "a"], [[[7]]]]
)
def test_anything_else_is_told_what_may_be(given: Any):
    with pytest.raises(
        ValidationError, match="give a text, a list of texts, a list of token ids, or a list of"
    ):
        Asked(input=given)


@pytest.mark.parametrize("given", ["a" * 99, [7] * 99, ["a"] * 3])
def test_inputs_are_counted_and_not_letters_or_tokens(given: Any):
    limits.check(Asked(input=given), Limits(inputs=3))


@pytest.mark.parametrize("given", [["a"] * 4, [[7]] * 4])
def test_more_inputs_than_the_limit_are_refused_by_its_name(given: Any):
    with pytest.raises(LimitError, match="input is 4; the limit 'inputs' is 3"):
        limits.check(Asked(input=given), Limits(inputs=3))


@pytest.mark.parametrize(
    ("inputs", "sentence"), [([], "x is empty"), (["a", ""], "position 1"), ([[], [7]], "position 0")]
)
def test_nothing_to_encode_is_an_error_of_its_own(inputs: Any, sentence: str):
    with pytest.raises(EmptyInputError, match=sentence) as error:
        refuse_empty("x", inputs)
    assert error.value.errors[0]["field"] == "x"


@pytest.mark.parametrize(
    ("inputs", "sentence"),
    [
        (["a" * 5, "a" * 6], "text 1 in bytes is 6; the limit 'document_bytes' is 5"),
        (["é" * 3], "text 0 in bytes is 6; "),
        ([[7] * 6], "text 0 in tokens is 6; "),
    ],
)
def test_a_text_has_no_more_bytes_than_a_document(inputs: Any, sentence: str):
    with pytest.raises(LimitError, match=sentence):
        refuse_huge(inputs, 5)
    refuse_huge(inputs, 6)
