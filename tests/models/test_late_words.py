import re

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from models.late_words import word_labels


def spans(*pairs: tuple[int, int]) -> NDArray[np.int64]:
    return np.array(pairs, np.int64).reshape(-1, 2)


TEXT = "playing, plays playing"
PIECES = spans((0, 0), (0, 4), (4, 7), (7, 8), (9, 13), (13, 14), (15, 19), (19, 22), (0, 0))
"""[CLS] play ##ing , play ##s play ##ing [SEP]"""


def test_all_pieces_of_all_occurrences_of_a_word_are_one() -> None:
    assert word_labels(TEXT, PIECES).tolist() == [0, 1, 1, 2, 3, 3, 1, 1, 4]


def test_words_of_one_stem_are_one_when_words_are_stemmed() -> None:
    labels = word_labels(TEXT, PIECES, lambda word: re.sub("(ing|s)$", "", word.lower()))
    assert labels.tolist() == [0, 1, 1, 2, 1, 1, 1, 1, 3]


def test_case_does_not_matter_and_special_rows_stand_alone() -> None:
    labels = word_labels("Sea SEA", spans((0, 0), (0, 0), (0, 3), (4, 7), (0, 0)))
    assert labels.tolist() == [0, 1, 2, 2, 3]
    assert labels.dtype == np.int32


def test_words_end_at_punctuation_of_any_script_and_marks_are_one_another() -> None:
    text = "sea_sea“sea”—water. sea."
    found = word_labels(text, spans((0, 3), (3, 4), (4, 7), (8, 11), (13, 18), (18, 19), (20, 23), (23, 24)))
    assert found.tolist() == [0, 1, 0, 0, 2, 3, 0, 3]


def test_a_combining_accent_ends_no_word() -> None:
    assert word_labels("cafe\u0301 cafe\u0301", spans((0, 2), (2, 5), (6, 11))).tolist() == [0, 0, 0]


def test_an_ideograph_is_a_word_of_its_own() -> None:
    assert word_labels("潮汐潮", spans((0, 1), (1, 2), (2, 3))).tolist() == [0, 1, 0]


def test_a_piece_may_bring_the_space_before_it() -> None:
    assert word_labels("sea sea", spans((0, 3), (3, 7))).tolist() == [0, 0]


def test_no_rows_have_no_labels() -> None:
    assert word_labels("sea", spans()).shape == (0,)


words = st.lists(st.sampled_from(["sea", "Sea", "tide", "moon", "tides"]), min_size=1, max_size=12)


@given(words, st.randoms())
def test_the_order_of_words_does_not_matter(texts: list[str], random: object) -> None:
    def counts(each: list[str]) -> list[int]:
        text = " ".join(each)
        found = word_labels(text, spans(*(match.span() for match in re.finditer(r"\w+", text))))
        assert list(dict.fromkeys(found.tolist())) == list(range(found.max() + 1))
        return sorted(np.bincount(found).tolist())

    shuffled = list(texts)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert counts(texts) == counts(shuffled)
    assert len(counts(texts)) == len({word.lower() for word in texts})
