"""Passages end with sentences, overlap, fit, and lose nothing."""

from itertools import pairwise

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from indexer.passages import (
    clip,
    encode_text,
    joint_offsets,
    split,
    title_limit,
    word_offsets,
)


def passages(text: str, tokens: int, **options: int) -> list[str]:
    spans = split(text, word_offsets(text), max_tokens=tokens, **options)
    return [text[begin:end] for begin, end in spans]


def test_what_fits_is_one_passage_as_it_stands():
    assert passages("  One two. Three.  ", 3) == ["  One two. Three.  "]
    assert passages("", 3) == [""]
    assert passages("  ", 3) == ["  "]


def test_the_last_sentence_is_said_again():
    text = "Ab cd. Ef gh. Ij kl. Mn op."
    assert passages(text, 4) == ["Ab cd. Ef gh.", "Ef gh. Ij kl.", "Ij kl. Mn op."]
    assert passages(text, 4, overlap_sentences=0) == ["Ab cd. Ef gh.", "Ij kl. Mn op."]
    assert passages(text, 6, overlap_sentences=2) == ["Ab cd. Ef gh. Ij kl.", "Ef gh. Ij kl. Mn op."]


def test_no_overlap_where_it_would_not_fit():
    assert passages("Ab cd ef gh. Ij kl. Mn op qr.", 4) == ["Ab cd ef gh.", "Ij kl.", "Mn op qr."]


def test_a_long_sentence_is_cut_between_words():
    assert passages("a b c d e f g. H.", 3) == ["a b c", "d e f", "g. H."]


def test_text_without_spaces_is_cut_between_pieces():
    assert passages("潮汐是月亮的引力", 3) == ["潮汐是", "月亮的", "引力"]


def test_of_a_long_title_no_more_is_read_than_a_third_of_a_passage():
    assert title_limit(18) == 6
    assert title_limit(254) == 64


def test_a_long_title_is_clipped_where_a_word_ends():
    title = "one two three"
    assert clip(title, word_offsets(title), 2) == "one two"
    assert clip(title, word_offsets(title), 3) == title
    assert clip("", word_offsets(""), 2) == ""


def test_title_and_passage_are_joined_by_a_space():
    assert encode_text("Tides", "They rise.") == "Tides They rise."
    assert encode_text("", "They rise.") == "They rise."


def test_a_megabyte_of_stops_is_nothing_special():
    for text in ("." * 10**6, ".\"'" * 300_000, "\n" + " " * 10**6 + "x"):
        assert split(text, word_offsets(text)) == [(0, len(text))]


WORDY = st.text(st.sampled_from("ab。．.!? \n\"'潮é1"), max_size=200)


@given(WORDY, st.integers(1, 12), st.integers(0, 2))
def test_passages_are_ordered_fit_and_cover_everything(text: str, tokens: int, overlap: int):
    offsets = word_offsets(text)
    spans = split(text, offsets, max_tokens=tokens, overlap_sentences=overlap)
    assert spans == sorted(set(spans))
    assert [end for _, end in spans] == sorted({end for _, end in spans})
    covered = {at for begin, end in spans for at in range(begin, end)}
    assert all(character.isspace() or at in covered for at, character in enumerate(text))
    for begin, end in spans:
        assert ((offsets[:, 0] >= begin) & (offsets[:, 0] < end)).sum() <= tokens


def offsets(*spans: tuple[int, int]) -> NDArray[np.int64]:
    return np.array(spans, np.int64).reshape(-1, 2)


def test_pieces_of_two_tokenizers_begin_where_either_begins_one():
    words, halves = offsets((0, 4), (5, 9)), offsets((0, 2), (2, 4), (5, 7), (7, 9))
    assert joint_offsets([words, halves]).tolist() == halves.tolist()
    crossing = offsets((0, 3), (3, 4), (5, 9))
    assert joint_offsets([halves, crossing]).tolist() == [[0, 2], [2, 3], [3, 4], [5, 7], [7, 9]]
    assert joint_offsets([words, words]) is words
    assert joint_offsets([words, offsets()]).tolist() == words.tolist()


def test_the_bytes_of_one_character_count_each():
    assert joint_offsets([offsets((0, 1), (0, 1), (0, 1)), offsets((0, 1))]).tolist() == [
        [0, 0],
        [0, 0],
        [0, 1],
    ]


@st.composite
def tokenizers(draw: st.DrawFn) -> tuple[str, list[NDArray[np.int64]]]:
    """A text, and where two tokenizers cut its words."""
    text = draw(st.text("ab .", max_size=60))
    cuts = [draw(st.sets(st.integers(0, 60))) for _ in range(2)]
    return text, [_pieces(text, each) for each in cuts]


def _pieces(text: str, cuts: set[int]) -> NDArray[np.int64]:
    spans = []
    for begin, end in word_offsets(text).tolist():
        borders = [begin, *sorted(cut for cut in cuts if begin < cut < end), end]
        spans += list(pairwise(borders))
    return offsets(*spans)


@given(tokenizers(), st.integers(1, 8))
def test_a_passage_fits_every_tokenizer(cut: tuple[str, list[NDArray[np.int64]]], most: int):
    text, each = cut
    for begin, end in split(text, joint_offsets(each), max_tokens=most, overlap_sentences=1):
        for pieces in each:
            assert ((pieces[:, 0] >= begin) & (pieces[:, 0] < end)).sum() <= most
