import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.packing import pack


def test_texts_of_a_length_share_a_batch_shortest_first() -> None:
    assert pack([3, 9, 2, 3], budget=1000) == [[2, 0, 3, 1]]


def test_short_texts_are_not_padded_to_a_long_one() -> None:
    assert pack([3, 90, 2, 3], budget=1000, padding=99) == [[2, 0, 3], [1]]
    assert pack([8] * 31 + [250], budget=8192) == [list(range(31)), [31]]


def test_a_batch_is_cut_where_padding_would_pass_the_budget() -> None:
    assert pack([4, 4, 4, 5], budget=12) == [[0, 1, 2], [3]]


def test_a_text_longer_than_the_budget_travels_alone() -> None:
    assert pack([5, 500, 501], budget=10) == [[0], [1], [2]]


def test_a_batch_is_cut_at_most_texts() -> None:
    assert pack([1, 1, 1], budget=100, most=2) == [[0, 1], [2]]


def test_no_texts_make_no_batches() -> None:
    assert pack([], budget=10) == []


@pytest.mark.parametrize(("budget", "most"), [(0, 1), (1, 0)])
def test_a_batch_that_could_hold_nothing_is_refused(budget: int, most: int) -> None:
    with pytest.raises(ValueError, match="at least one token and one text"):
        pack([1], budget, most)


@given(st.lists(st.integers(1, 50)), st.integers(1, 200), st.integers(1, 9), st.integers(0, 50))
def test_every_text_is_in_one_batch_and_no_batch_passes_a_limit(
    lengths: list[int], budget: int, most: int, padding: int
) -> None:
    batches = pack(lengths, budget, most, padding)
    assert sorted(position for batch in batches for position in batch) == list(range(len(lengths)))
    for batch in batches:
        found = [lengths[position] for position in batch]
        padded = len(found) * max(found)
        assert len(found) == 1 or padded <= budget
        assert padded - sum(found) <= padding
        assert len(found) <= most
