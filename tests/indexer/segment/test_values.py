import pytest

from indexer.segment.values import check_metadata, microseconds, typed


def taken(metadata, **declared):
    return list(typed(metadata, declared))


def test_metadata_is_taken_as_it_comes():
    metadata = {"a": "text", "b": True, "c": 3, "d": 2.5, "e": None, "f": [], "g": {}}
    assert taken(metadata) == [
        ("a", "keyword", "text"),
        ("b", "bool", True),
        ("c", "int64", 3),
        ("d", "float64", 2.5),
    ]


def test_lists_give_several_values_and_objects_dotted_paths():
    assert taken({"a": [1, "x", [2]], "b": {"c": {"d": 1}}}) == [
        ("a", "int64", 1),
        ("a", "keyword", "x"),
        ("a", "int64", 2),
        ("b.c.d", "int64", 1),
    ]


def test_integers_beyond_64_bits_become_floats():
    assert taken({"a": [2**63 - 1, 2**63, -(2**63)]}) == [
        ("a", "int64", 2**63 - 1),
        ("a", "float64", 2.0**63),
        ("a", "int64", -(2**63)),
    ]


def test_declared_values_are_converted():
    assert taken({"a": 1, "when": "1970-01-01T00:00:01Z"}, a="float64", when="datetime") == [
        ("a", "float64", 1.0),
        ("when", "datetime", 1_000_000),
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1970-01-02", 86_400_000_000),
        ("1970-01-01T01:00:00+01:00", 0),
        ("1969-12-31T23:59:59.999999Z", -1),
        ("1970-01-01 00:00", 0),
    ],
)
def test_times_are_utc_unless_they_say_otherwise(text, expected):
    assert microseconds(text) == expected


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("int64", 2.5),
        ("int64", 2**63),
        ("int64", True),
        ("float64", "1"),
        ("float64", 10**400),
        ("bool", 1),
        ("keyword", 1),
        ("datetime", "yesterday"),
        ("datetime", 0),
    ],
)
def test_a_value_that_does_not_fit_is_named_with_path_and_type(kind, value):
    with pytest.raises(ValueError, match=rf"'a\.b' is declared {kind}, which .+ is not"):
        check_metadata({"a": {"b": value}}, {"a.b": kind})


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 10**400, object()])
def test_what_no_column_can_hold_is_refused(value):
    with pytest.raises(ValueError, match="'a'"):
        check_metadata({"a": value}, {})


@pytest.mark.parametrize("name", ["$or", "_id"])
def test_names_that_filters_use_are_refused(name):
    with pytest.raises(ValueError, match="filters give this name a meaning"):
        check_metadata({name: 1}, {})


def test_a_huge_value_is_not_printed():
    with pytest.raises(ValueError, match="an integer of 33220 bits"):
        check_metadata({"a": 10**10_000}, {"a": "int64"})
