import pytest

from models.sentences import sentences


def said(text: str) -> list[str]:
    return [text[begin:end] for begin, end in sentences(text)]


@pytest.mark.parametrize(
    "parts",
    [
        ["Tides rise.", "They fall!", "Why?", "The moon..."],
        ['He said "stop."', "She did.", "(It ended.)", "Then"],
        ["Dr. Smith et al. (2010) saw 3.14 m, e.g. in Fig. 3.", "It rose."],
        ["J. R. Doe of the U.S. Navy left at 5 p.m. on Jan. 3.", "He came back."],
        ["Use a.b.c or x.y, v. 2.0.", "Done"],
        ["1. First things", "\n\n2. Second things"],
        ["A heading\n \n", "A paragraph\nof two lines."],
        ["潮汐是什么？", "月亮。", "「はい。」", "次の文！", "終"],
        ["π≈３．１４です．", "次"],
        ["no end"],
    ],
)
def test_sentences_end_where_a_reader_would_end_them(parts: list[str]):
    assert said(" ".join(parts)) == [part.strip() for part in parts]


def test_a_list_number_is_no_sentence():
    assert said("Two ways:\n 1. Walk.\n 2. Swim.") == ["Two ways:\n 1. Walk.", "2. Swim."]


def test_spaces_alone_have_no_sentence():
    assert sentences(" \n\n ") == []
