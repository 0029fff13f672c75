import json
import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.errors import InvalidError, MalformedError
from service.strict_json import parse

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)  # fmt: skip


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b" ",
        b"{",
        b"{} x",
        b"[01]",
        b"'a'",
        b'{"a": 1, "a": 2}',
        b'[{"b": {"a": 1, "a": 2}}]',
        b'["\xff"]',
        b'["\xed\xa0\x80"]',
        b'["\x00"]',
        b"\x00{}",
        b"\xef\xbb\xbf{}",
        b"[" * 100_000,
        b"[" * 300 + b"]" * 300,
        b'{"a":' * 300 + b"1" + b"}" * 300,
        b"[" + b"9" * 10_000 + b"]",
        b"[NaN",
        b"[" * 100_000 + b"NaN",
        b'["\\u12"]',
    ],
    ids=lambda raw: repr(raw[:20]),
)
def test_what_is_no_json_is_malformed(raw: bytes):
    with pytest.raises(MalformedError, match="not valid JSON"):
        parse(raw)


@pytest.mark.parametrize(
    "raw",
    [
        b"[NaN]",
        b'{"a": Infinity}',
        b"[-Infinity]",
        b"[1e999]",
        b"[-1e999]",
        b'{"a": [{"b": 1E+400}]}',
        b"[" + b"1" * 400 + b".0]",
        b"[" + b"1" * 250 + b"e99]",
        rb'["\ud800"]',
        rb'["\udc00"]',
        rb'["\ud800\u0041"]',
        rb'{"\uD800": 1}',
    ],
)
def test_numbers_and_text_that_cannot_be_kept_are_invalid(raw: bytes):
    with pytest.raises(InvalidError):
        parse(raw)


@pytest.mark.parametrize(
    ("raw", "value"),
    [
        (b"1e300", 1e300),
        (b"[1e-999]", [0.0]),
        (rb'["\ud83d\ude00", "\u0000"]', ["😀", "\x00"]),
        (b'["NaN", "1e999"]', ["NaN", "1e999"]),
    ],
)
def test_what_only_looks_wrong_is_taken(raw: bytes, value: Any):
    assert parse(raw) == value


@given(JSON)
@settings(max_examples=100)
def test_any_json_value_comes_through_unchanged(value: Any):
    assert parse(json.dumps(value).encode()) == value


@given(st.binary(max_size=40))
@settings(max_examples=200)
def test_any_bytes_are_parsed_or_refused(raw: bytes):
    try:
        value = parse(raw)
    except (MalformedError, InvalidError):
        return
    assert not isinstance(value, float) or math.isfinite(value)
