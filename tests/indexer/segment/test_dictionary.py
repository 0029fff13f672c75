import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from indexer.segment.dictionary import Dictionary, digest64, write_dictionary


def collide(string: bytes) -> bytes:
    """Three hashes for everything."""
    return bytes([len(string) % 3] * 8)


def dictionary(strings, digest=digest64):
    return Dictionary(write_dictionary(strings, "word", digest), "word", digest)


def test_a_string_s_number_is_its_place():
    words = dictionary(["moon", "", "tide", "東京"])
    assert words.find(["tide", "東京", "", "sun", "moon"]).tolist() == [2, 3, 1, -1, 0]
    assert [words.string(number) for number in range(4)] == words.strings() == ["moon", "", "tide", "東京"]


def test_an_empty_dictionary_finds_nothing():
    words = dictionary([])
    assert len(words) == 0
    assert words.find(["a"]).tolist() == [-1]
    assert words.find([]).tolist() == []


def test_a_string_that_is_there_twice_is_refused():
    with pytest.raises(ValueError, match="'a' is there twice"):
        dictionary(["a", "b", "a"])


@settings(max_examples=40, deadline=None)
@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=4), unique=True, max_size=30))
def test_collisions_change_no_answer(strings):
    words = dictionary(strings, collide)
    asked = [*strings, *(string + "!" for string in strings)]
    places = {string: number for number, string in enumerate(strings)}
    assert words.find(asked).tolist() == [places.get(string, -1) for string in asked]
