import pytest

from indexer.filters import FilterError, parse


def nested(depth):
    raw = {"a": 1}
    for _ in range(depth - 1):
        raw = {"$not": raw}
    return raw


@pytest.mark.parametrize(
    ("raw", "sentence"),
    [
        ([], "a filter is an object"),
        ("lang:en", "a filter is an object"),
        ({"a": None}, "'a': nothing equals null"),
        ({"a": [1, None]}, "'a': nothing equals null"),
        ({"a": [[1]]}, "is not text, a number or a boolean"),
        ({"a": float("nan")}, "is not a finite number"),
        ({"a": {}}, "there is no comparison"),
        ({"a": {"eq": 1}}, "'eq' is not a comparison"),
        ({"a": {"gt": 1, "gte": 2}}, "give gt or gte, not both"),
        ({"a": {"gt": True}}, "bounds are numbers or text"),
        ({"a": {"gt": 1, "lt": "b"}}, "both of one kind"),
        ({"a": {"gt": [1]}}, "is not text, a number or a boolean"),
        ({"a": {"exists": 1}}, "exists takes true or false"),
        ({"$nor": []}, "'\\$nor' is not known"),
        ({"$or": {}}, "takes a list of filters"),
        ({"$or": [1]}, "a filter is an object"),
        ({"$not": []}, "a filter is an object"),
        (nested(9), "at most 8 deep"),
        ({str(i): 1 for i in range(257)}, "at most 256 nodes"),
        ({"$or": [{"a": 1}] * 256}, "at most 256 nodes"),
        ({"a": list(range(10_001))}, "at most 10,000 values"),
    ],
)
def test_what_is_wrong_is_said_in_a_sentence(raw, sentence):
    with pytest.raises(FilterError, match=sentence):
        parse(raw)


def test_limits_are_inclusive():
    parse(nested(8))
    parse({str(i): 1 for i in range(256)})


def test_an_ill_formed_filter_is_not_printed_whole():
    with pytest.raises(FilterError) as caught:
        parse("x" * 10_000)
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}),
        ({"a": [1, 2]}, {"a": [2, 1, 1]}),
        ({"$or": [{"a": 1}, {"b": 2}]}, {"$or": [{"b": 2}, {"a": 1}]}),
    ],
)
def test_the_same_question_in_another_order_is_the_same_key(one, other):
    assert parse(one) == parse(other)
    assert hash(parse(one)) == hash(parse(other))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"a": 1}, {"a": True}),
        ({"a": 1}, {"a": "1"}),
        ({"a": {"gt": 1}}, {"a": {"gte": 1}}),
        ({"a": {"gt": 1}}, {"a": {"lt": 1}}),
        ({"$or": []}, {"$and": []}),
        ({"$not": {"a": 1}}, {"a": 1}),
        ({"a": 1, "b": 1}, {"$or": [{"a": 1}, {"b": 1}]}),
    ],
)
def test_different_questions_are_different_keys(one, other):
    assert parse(one) != parse(other)
    assert parse(one).canonical() != parse(other).canonical()
