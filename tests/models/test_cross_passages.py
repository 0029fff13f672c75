import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.cross_passages import Windows, add_up, choose, cut


def words(text: str) -> np.ndarray:
    """A token a word, as int64 [m, 2]; full stops and spaces are tokens too where they stand alone."""
    return np.array([found.span() for found in re.finditer(r"\w+|\S| {3}", text)], np.int64).reshape(-1, 2)


def texts(text: str, windows: Windows) -> list[str]:
    return [text[begin:end] for begin, end in windows.characters.tolist()]


def test_windows_overlap_their_neighbours():
    text = "one two three four five six seven"
    windows = cut(text, words(text), window=2, overlap=1)
    assert texts(text, windows) == [
        "one two three",
        "two three four five",
        "four five six seven",
        "six seven",
    ]
    assert windows.tokens.tolist() == [[0, 3], [1, 5], [3, 7], [5, 7]]


def test_a_text_that_fits_the_longest_window_is_read_whole():
    text = "  one two three four  "
    assert texts(text, cut(text, words(text), window=2, overlap=1)) == [text]
    assert texts("", cut("", words(""), window=2, overlap=1)) == [""]


def test_a_window_that_says_nothing_itself_is_left_out_whatever_its_neighbours_say():
    text = "one two" + " " * 12 + "three four"
    pieces = words(text)
    assert len(pieces) == 8, "four tokens of spaces"
    windows = cut(text, pieces, window=2, overlap=1)
    assert windows.tokens.tolist() == [[0, 3], [5, 8]]
    blank = " " * 24
    assert texts(blank, cut(blank, words(blank), window=2, overlap=1)) == [blank]


@given(st.integers(1, 60), st.integers(1, 9), st.integers(0, 5))
def test_windows_cover_every_token_and_none_is_too_long(number: int, window: int, overlap: int):
    text = " ".join(["word"] * number)
    windows = cut(text, words(text), window, overlap)
    covered = {token for begin, end in windows.tokens.tolist() for token in range(begin, end)}
    assert covered == set(range(number))
    assert np.diff(windows.tokens).max() <= window + 2 * overlap
    assert all(each.strip() for each in texts(text, windows))


def test_the_best_windows_are_chosen_and_keep_their_order():
    estimates = np.array([0.5, 2.0, 0.5, 3.0], np.float32)
    assert choose(estimates, 2).tolist() == [1, 3]
    assert choose(estimates, 3).tolist() == [0, 1, 3], "of equal ones the first"
    assert choose(estimates, 9).tolist() == [0, 1, 2, 3]


def scores(windows: list[list[float]], weights: list[float]) -> list[float]:
    """The scores of documents that have these windows."""
    owners = [number for number, each in enumerate(windows) for _ in each]
    flat = np.array([score for each in windows for score in each], np.float32)
    return add_up(flat, np.array(owners, np.int64), len(windows), weights).tolist()


def test_the_best_three_are_added():
    assert scores([[2.0, -1.0, 0.5, 1.2]], [1, 1, 1]) == [pytest.approx(3.7)]


def test_a_score_of_zero_counts_as_one_and_what_is_absent_counts_nothing():
    assert scores([[0.0, -1.0], [-1.0]], [1, 1]) == [-1.0, -1.0]
    assert scores([[-5.0, 0.0, -2.0], [-3.0]], [1.0, 0.5]) == [-1.0, -3.0]
    assert scores([[-9000.0]], [1, 1, 1]) == [-9000.0]


def test_one_weight_is_the_best_passage():
    assert scores([[-3.0, -1.0], [-0.5], [2.0, 7.0, 1.0]], [1.0]) == [-1.0, -0.5, 7.0]


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(-50, 50)), min_size=1), st.randoms())
def test_the_order_of_windows_does_not_matter(windows: list[tuple[int, int]], random):
    given_ = [*windows, *((number, 0) for number in range(4))]
    found = []
    for _ in range(2):
        owners, values = (np.array(each) for each in zip(*given_, strict=True))
        found.append(add_up(values.astype(np.float32), owners, 4, [1.0, 0.25]).tolist())
        random.shuffle(given_)
    assert found[0] == found[1]
