"""Segments of a prompt: positions and BlockRank's mask, small enough to be read."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from models.in_context.segments import Segments, mask

PROMPT = Segments.of(2, [3, 1], 2)


def test_tokens_know_their_segment():
    assert PROMPT.ids().tolist() == [0, 0, 1, 1, 1, 2, 3, 3]
    assert PROMPT.starts == (0, 2, 5, 6, 8)
    assert PROMPT.tokens == 8


def test_documents_share_their_positions_and_the_question_begins_behind_the_gap():
    assert PROMPT.positions(10).tolist() == [0, 1, 2, 3, 4, 2, 12, 13]


def test_without_a_gap_positions_are_the_ordinary_ones():
    assert PROMPT.positions(None).tolist() == list(range(8))


def test_who_looks_at_whom():
    expected = [
        "x.......",
        "xx......",
        "xxx.....",
        "xxxx....",
        "xxxxx...",
        "xx...x..",
        "xxxxxxx.",
        "xxxxxxxx",
    ]
    assert ["".join(".x"[seen] for seen in row) for row in mask(PROMPT).int().tolist()] == expected


@given(st.integers(0, 5), st.integers(1, 9), st.integers(0, 5))
def test_one_document_is_ordinary_causal_attention(instruction: int, document: int, question: int):
    segments = Segments.of(instruction, [document], question)
    causal = torch.ones(segments.tokens, segments.tokens, dtype=torch.bool).tril()
    assert torch.equal(mask(segments), causal)
    assert segments.positions(document).tolist() == list(range(segments.tokens))


@given(st.permutations([3, 1, 4]))
def test_the_order_of_documents_does_not_change_what_one_sees(lengths: list[int]):
    segments = Segments.of(2, lengths, 1)
    seen = dict(zip(segments.documents, mask(segments).sum(1).split(segments.lengths)[1:-1], strict=True))
    assert {length: row.tolist() for length, row in seen.items()} == {
        1: [3],
        3: [3, 4, 5],
        4: [3, 4, 5, 6],
    }


def test_documents_alone_are_segments_too():
    segments = Segments.of(0, [2, 2], 0)
    assert mask(segments).int().tolist() == [[1, 0, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 1, 1]]
    assert segments.positions(2).tolist() == [0, 1, 0, 1]


def test_as_one_document_all_see_all_before_them():
    assert mask(PROMPT.causal()).int().tolist() == torch.ones(8, 8).tril().int().tolist()
    assert Segments.of(0, [], 0).causal() == Segments.of(0, [], 0)


def test_documents_are_cut_anew_into_windows():
    assert Segments.of(2, [3, 4], 1).windows(3) == Segments.of(2, [3, 3, 1], 1)
    assert Segments.of(2, [3, 3], 1).windows(3) == Segments.of(2, [3, 3], 1)


@given(st.integers(0, 5), st.integers(1, 9), st.integers(0, 5))
def test_one_window_is_ordinary_causal_attention(instruction: int, document: int, question: int):
    segments = Segments.of(instruction, [document], question)
    assert torch.equal(mask(segments.windows(document)), mask(segments.causal()))


def test_windows_of_nothing_are_refused():
    with pytest.raises(ValueError, match="windows of 0 tokens"):
        PROMPT.windows(0)


def test_a_document_that_reaches_into_the_question_is_refused():
    with pytest.raises(ValueError, match=r"a document of 3 tokens .* begins 2 behind"):
        PROMPT.positions(2)


@pytest.mark.parametrize(("lengths", "message"), [((1, [2, 0], 1), "document 1"), ((-1, [2], 1), "of -1")])
def test_impossible_lengths_are_refused(lengths: tuple[int, list[int], int], message: str):
    with pytest.raises(ValueError, match=message):
        Segments.of(*lengths)
