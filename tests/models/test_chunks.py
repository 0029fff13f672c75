import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.chunks import Document, Text, Window, range_sums, token_ranges, windows


def text(pieces: int, before: int = 1, after: int = 1) -> Text:
    """A text of one-letter words: piece i begins at character 2i."""
    return Text([0] * before, list(range(1, pieces + 1)), [0] * after, 2 * np.arange(pieces))


def test_the_mean_over_a_span() -> None:
    states = np.array([[1.0, 1.0], [3.0, 1.0]], np.float32)
    assert (range_sums(states, np.array([[0, 2]])) / 2).tolist() == [[2.0, 1.0]]
    assert range_sums(states, np.array([[0, 1], [1, 2], [1, 1]])).tolist() == [[1, 1], [3, 1], [0, 0]]


def test_windows_overlap_by_half_and_each_piece_is_used_once() -> None:
    assert windows(4, 4) == [Window(0, 0, 4)]
    assert windows(9, 4) == [Window(0, 0, 4), Window(2, 4, 6), Window(4, 6, 8), Window(6, 8, 9)]
    assert windows(0, 4) == [Window(0, 0, 0)]


@given(st.integers(0, 60), st.integers(1, 12))
def test_windows_use_all_pieces_in_order_and_read_at_most_their_room(pieces: int, room: int) -> None:
    found = windows(pieces, room)
    assert [each for window in found for each in range(window.fresh, window.end)] == list(range(pieces))
    assert all(window.end - window.begin <= room for window in found)
    for window in found[1:]:
        assert window.fresh - window.begin == room // 2
        assert window.end > window.fresh


def test_a_piece_is_of_the_spans_that_it_begins_in() -> None:
    starts = np.array([0, 4, 9, 12])
    assert token_ranges(starts, [(0, 9), (4, 12), (9, 99)]).tolist() == [[0, 2], [1, 3], [2, 4]]


def test_a_span_in_which_no_piece_begins_stands_for_all() -> None:
    assert token_ranges(np.array([0, 4]), [(5, 9), (4, 4)]).tolist() == [[0, 2], [0, 2]]
    assert token_ranges(np.empty(0, np.int64), [(0, 0)]).tolist() == [[0, 0]]
    assert token_ranges(np.array([0, 4]), []).shape == (0, 2)


def test_what_is_before_a_text_is_of_its_first_chunk_and_what_is_after_of_its_last() -> None:
    document = Document(text(4), [(0, 4), (4, 8)], most=10, dim=2)
    (window,) = document.windows
    assert document.tokens(window) == [0, 1, 2, 3, 4, 0]
    states = np.array([[30, 0], [1, 1], [1, 1], [1, 1], [1, 1], [0, 8]], np.float32)
    assert document.add(window, states) == 2
    found = document.vectors()
    assert found.dtype == np.float32
    expected = np.array([[32, 2], [2, 10]])
    np.testing.assert_allclose(found, expected / np.linalg.norm(expected, axis=1, keepdims=True), rtol=1e-6)


def test_a_document_without_chunks_is_not_read() -> None:
    document = Document(text(4), [], most=10, dim=2)
    assert document.windows == []
    assert document.vectors().shape == (0, 2)


def test_a_net_that_has_no_room_for_a_piece_is_refused() -> None:
    with pytest.raises(ValueError, match="12 tokens around a text leave no room for it in 12"):
        Document(text(4, before=11), [(0, 8)], most=12, dim=2)


chunk = st.tuples(st.integers(0, 40), st.integers(0, 40)).map(sorted).map(tuple)


@given(
    st.integers(0, 20), st.integers(0, 2), st.integers(0, 2), st.lists(chunk, min_size=1), st.integers(1, 9),
    st.randoms(),
)  # fmt: skip
def test_states_that_no_context_changes_give_the_same_chunks_in_windows_as_at_once(
    pieces: int, before: int, after: int, chunks: list[tuple[int, int]], room: int, random: object
) -> None:
    states = np.random.default_rng(1).normal(size=(100, 3)).astype(np.float32)

    def found(most: int) -> np.ndarray:
        document = Document(text(pieces, before, after), chunks, most, dim=3)
        order = list(document.windows)
        random.shuffle(order)  # type: ignore[attr-defined]
        done = [document.add(window, states[document.tokens(window)]) for window in order]
        assert done == [0] * (len(order) - 1) + [len(chunks)]
        return document.vectors()

    np.testing.assert_allclose(found(before + room + after), found(100), atol=1e-5)
