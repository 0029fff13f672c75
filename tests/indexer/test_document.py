"""A document is accepted whole or refused with a sentence that says what to change."""

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from indexer.document import Document


def refusal(**changes: Any) -> str:
    with pytest.raises(ValidationError) as caught:
        Document.model_validate({"id": "a", "text": "b"} | changes)
    return str(caught.value)


def nested(levels: int) -> dict[str, Any]:
    value: dict[str, Any] = {}
    for _ in range(levels - 1):
        value = {"deeper": value}
    return value


def test_only_id_and_text_are_needed():
    document = Document(id="a", text="b")
    assert (document.title, document.metadata) == ("", {})


def test_beir_writes_underscore_id():
    assert Document.model_validate({"_id": "a", "text": "b"}) == Document(id="a", text="b")


def test_json_keeps_everything_in_one_form():
    document = Document(id="a", text="é\x00", metadata={"n": 2**63 - 1, "x": [1.5, None, True]})
    assert Document.from_json(document.to_json()) == document
    assert Document(id="a", text="b").to_json() == b'{"id":"a","title":"","text":"b","metadata":{}}'


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"id": ""}, "must not be empty"),
        ({"id": "é" * 257}, "longer than 512 bytes"),
        ({"id": "a\r\nb"}, "control characters"),
        ({"id": "a\x9f"}, "control characters"),
        ({"id": 7}, "valid string"),
        ({"_id": "b"}, "Extra inputs"),
        ({"txet": "b"}, "Extra inputs"),
        ({"text": "a\ud800"}, "character 1 is half of a surrogate pair"),
        ({"title": "\udfff"}, "character 0 is half of a surrogate pair"),
        ({"metadata": {"a": ["x", "\ud800"]}}, "metadata.a[1]: character 0"),
        ({"metadata": {"\ud800": 1}}, "metadata: the key '\\ud800'"),
        ({"metadata": {"a": {"b": math.nan}}}, "metadata.a.b: a number must be finite"),
        ({"metadata": {"a": -math.inf}}, "metadata.a: a number must be finite"),
        ({"metadata": {"a": 2**63}}, "metadata.a: an integer must fit in 64 signed bits"),
        ({"metadata": nested(9)}, "nested deeper than 8 levels"),
        ({"metadata": nested(100_000)}, "nested deeper than 8 levels"),
        ({"metadata": [1]}, "valid dict"),
    ],
)
def test_refused_with_a_reason(changes: dict[str, Any], said: str):
    assert said in refusal(**changes)


def test_the_limits_themselves_are_accepted():
    assert Document(id="é" * 256, text="", metadata=nested(8)).metadata == nested(8)
    assert Document(id="../../x", text="").id == "../../x"


FLOATS = st.floats(allow_nan=False, allow_infinity=False)
LEAVES = st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | FLOATS | st.text()
VALUES = LEAVES | st.lists(LEAVES, max_size=3) | st.dictionaries(st.text(), LEAVES, max_size=3)


@given(st.text(), st.dictionaries(st.text(), VALUES, max_size=3))
def test_what_is_accepted_comes_back_unchanged(text: str, metadata: dict[str, Any]):
    document = Document(id="a", text=text, metadata=metadata)
    assert Document.from_json(document.to_json()) == document
