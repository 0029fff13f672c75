import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from indexer.filters import parse
from indexer.segment.columns import Columns, merge_columns, write_columns

DOCUMENTS = [
    {"year": 2020, "lang": "en", "open": True},
    {"year": 2021.5, "lang": ["fr", "de"], "when": "2024-01-02T03:04:05Z"},
    {"year": [1999, 2022], "lang": "", "open": 1, "at": {"town": "Köln"}},
    {},
]


def nobody(ids):
    return np.array([-1 for _ in ids], np.int64)


def columns(path, documents, passages=None, declared=None, find=nobody):
    per_document = passages or [1] * len(documents)
    rows = np.repeat(np.arange(len(documents)), per_document).astype(np.uint32)
    write_columns(path, documents, rows, declared or {})
    return Columns(path, find)


@pytest.fixture(scope="module")
def some(tmp_path_factory):
    def find(ids):
        return np.array(["abcd".find(name) for name in ids], np.int64)

    path = tmp_path_factory.mktemp("c") / "c"
    return columns(path, DOCUMENTS, declared={"when": "datetime"}, find=find)


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        ({"year": 2020}, [0]),
        ({"year": 2020.0}, [0]),
        ({"year": 2021.5}, [1]),
        ({"year": [1999, 2020, 7]}, [0, 2]),
        ({"year": {"gt": 2020}}, [1, 2]),
        ({"year": {"gte": 2020}}, [0, 1, 2]),
        ({"year": {"gt": 1999.5, "lt": 2021.5}}, [0]),
        ({"year": {"gt": 2000, "lt": 2020}}, []),
        ({"year": {"lte": 1999}}, [2]),
        ({"year": {"lt": 10**400}}, [0, 1, 2]),
        ({"year": {"gt": -(10**400)}}, [0, 1, 2]),
        ({"year": 10**400}, []),
        ({"year": {"gt": 9, "lt": 3}}, []),
        ({"lang": "de"}, [1]),
        ({"lang": ""}, [2]),
        ({"lang": {"gte": "de", "lt": "en"}}, [1]),
        ({"lang": {"gt": "de"}}, [0, 1]),
        ({"lang": 1}, []),
        ({"open": True}, [0]),
        ({"open": 1}, [2]),
        ({"open": {"gte": 0}}, [2]),
        ({"open": [True, 1]}, [0, 2]),
        ({"open": {"exists": True}}, [0, 2]),
        ({"open": {"exists": False}}, [1, 3]),
        ({"at.town": "Köln"}, [2]),
        ({"at": {"exists": True}}, []),
        ({"when": "2024-01-02T04:04:05+01:00"}, [1]),
        ({"when": {"gte": "2024-01-02", "lt": "2024-01-03"}}, [1]),
        ({"when": {"gte": "soon"}}, []),
        ({"_id": ["b", "d", "z", 1]}, [1, 3]),
        ({"_id": {"exists": True}}, [0, 1, 2, 3]),
        ({"nothing": 1}, []),
        ({"nothing": {"exists": False}}, [0, 1, 2, 3]),
        ({}, [0, 1, 2, 3]),
        ({"lang": []}, []),
        ({"lang": "en", "year": 1999}, []),
        ({"$or": [{"lang": "en"}, {"year": 1999}]}, [0, 2]),
        ({"$or": []}, []),
        ({"$and": []}, [0, 1, 2, 3]),
        ({"$not": {"year": {"gt": 2020}}}, [0, 3]),
        ({"$and": [{"year": {"gt": 2000}}, {"$not": {"lang": "fr"}}]}, [0, 2]),
    ],
)
def test_which_documents_match(some, condition, expected):
    assert np.flatnonzero(parse(condition).mask(some, 4)).tolist() == expected


def test_numbers_beyond_float_precision_are_told_apart(tmp_path):
    segment = columns(tmp_path / "c", [{"n": 2**53}, {"n": 2**53 + 1}, {"n": 2.0**53}])
    assert segment.any_of("n", (2**53 + 1,)).tolist() == [False, True, False]
    assert segment.any_of("n", (2**53,)).tolist() == [True, False, True]
    assert parse({"n": {"gt": 2**53}}).mask(segment, 3).tolist() == [False, True, False]
    assert parse({"n": {"lt": 2**53 + 1}}).mask(segment, 3).tolist() == [True, False, True]


def test_every_passage_of_a_document_answers_alike(tmp_path):
    segment = columns(tmp_path / "c", [{"a": 1}, {"a": 2}], passages=[2, 3])
    assert parse({"a": 2}).mask(segment, 5).tolist() == [False, False, True, True, True]


scalars = st.one_of(
    st.text(st.characters(exclude_categories=["Cs"]), max_size=3),
    st.booleans(),
    st.integers(-(2**65), 2**65),
    st.floats(allow_nan=False, allow_infinity=False),
)
metadata = st.dictionaries(
    st.sampled_from(["a", "b:c", "ü"]), st.one_of(scalars, st.lists(scalars, max_size=3))
)


@settings(max_examples=60, deadline=None)
@given(st.lists(metadata, min_size=1, max_size=8), scalars)
def test_comparisons_equal_python_s(tmp_path_factory, documents, operand):
    segment = columns(tmp_path_factory.mktemp("c") / "c", documents)

    def values(document):
        found = document.get("a", [])
        return found if isinstance(found, list) else [found]

    def comparable(value):
        kinds = [str, bool, (int, float)]
        return [isinstance(value, k) for k in kinds] == [isinstance(operand, k) for k in kinds]

    def expect(holds):
        return [any(comparable(v) and holds(v) for v in values(document)) for document in documents]

    assert parse({"a": operand}).mask(segment, len(documents)).tolist() == expect(lambda v: v == operand)
    if not isinstance(operand, bool):
        for name, holds in {
            "gt": lambda v: v > operand,
            "gte": lambda v: v >= operand,
            "lt": lambda v: v < operand,
            "lte": lambda v: v <= operand,
        }.items():
            assert parse({"a": {name: operand}}).mask(segment, len(documents)).tolist() == expect(holds)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.lists(st.tuples(metadata, st.integers(1, 3), st.booleans()), min_size=1, max_size=4), max_size=3
    )
)
def test_merging_equals_writing_what_is_kept(tmp_path_factory, parts):
    path = tmp_path_factory.mktemp("c")
    opened = []
    for number, part in enumerate(parts):
        documents, passages, keeps = (list(x) for x in zip(*part, strict=True))
        opened.append((columns(path / str(number), documents, passages), np.repeat(keeps, passages)))
    kept = [(document, n) for part in parts for document, n, keep in part if keep]
    if not kept:
        return
    merge_columns(path / "merged", opened)
    columns(path / "scratch", [document for document, _ in kept], [n for _, n in kept])
    assert (path / "merged").read_bytes() == (path / "scratch").read_bytes()
