import pytest

from indexer.segment.analyzer import Analyzer
from indexer.segment.highlight import highlights

ENGLISH = Analyzer("en")


def marked(text, *terms, analyzer=ENGLISH, **limits):
    return highlights(analyzer, set(terms), text, **limits)


def test_every_form_of_a_term_is_marked():
    assert marked("Tides: the tide's turn", "tide") == [
        "<mark>Tides</mark>: the <mark>tide</mark>&#x27;s turn"
    ]


def test_the_text_is_escaped_inside_and_outside_of_marks():
    assert marked("<b>Café</b> & naïve", "café") == ["&lt;b&gt;<mark>Café</mark>&lt;/b&gt; &amp; naïve"]


def test_nothing_found_is_nothing_shown():
    assert marked("the moon", "sun") == []
    assert marked("", "sun") == []


def test_the_fragment_with_most_different_terms_is_chosen():
    text = "tide tide tide. " + "x " * 60 + "spring tide"
    assert marked(text, "tide", "spring", most=1, width=40) == [
        "x x x x x x x x x x <mark>spring</mark> <mark>tide</mark>"
    ]


def test_fragments_come_in_the_order_of_the_text_and_cut_at_spaces():
    text = "alpha beta gamma delta"
    assert marked(text, "delta", "alpha", most=2, width=12) == [
        "<mark>alpha</mark> beta",
        "gamma <mark>delta</mark>",
    ]


@pytest.mark.parametrize("width", [1, 2, 3, 7, 100])
def test_pairs_of_characters_are_marked_as_one_and_cut_anywhere(width):
    text = "東京都に行く"
    fragments = marked(text, "東京", "京都", analyzer=Analyzer("ja"), width=width, most=9)
    assert "".join(fragments).replace("<mark>", "").replace("</mark>", "") in text
    assert "".join(fragments).replace("</mark><mark>", "").startswith("<mark>東京"[: 6 + min(width, 2)])


def test_a_word_longer_than_a_fragment_is_shown_in_part():
    assert marked("abcdefgh", "abcdefgh", width=4) == ["<mark>abcd</mark>"]
