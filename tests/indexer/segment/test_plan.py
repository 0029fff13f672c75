"""The map of who wins where, at the places that were measured."""

import pytest

from indexer.segment.plan import USUAL, Plan, by_lists, by_rows, knobs

MANY_TERMS = 40


@pytest.mark.parametrize(
    ("k", "rows", "allowed", "terms", "lists"),
    [
        (10, 100_000, 100_000, MANY_TERMS, True),
        (1000, 100_000, 100_000, MANY_TERMS, False),  # deep
        (100, 500_000, 500_000, MANY_TERMS, True),
        (10, 500_000, 2_000, MANY_TERMS, False),  # few are allowed
        (10, 500_000, 500_000, 6, False),  # a short question
        (1, 10_000, 10_000, MANY_TERMS, False),  # small
    ],
)
def test_auto_goes_by_depth_size_filter_and_question(
    k: int, rows: int, allowed: int, terms: int, lists: bool
) -> None:
    assert by_lists(USUAL, k, rows, allowed, terms) is lists


def test_what_the_request_says_goes_before_unless_lists_would_find_next_to_nothing() -> None:
    assert not by_lists(Plan("exact"), 10, 500_000, 500_000, MANY_TERMS)
    assert by_lists(Plan("approximate"), 1000, 500_000, 500_000, 5)
    assert not by_lists(Plan("approximate"), 10, 500_000, 1_000, MANY_TERMS)


def test_rows_are_scored_one_by_one_when_they_are_fewer_than_postings_are_long() -> None:
    assert by_rows(1_000, 78_000)
    assert not by_rows(2_000, 78_000)


def test_the_fewer_rows_are_allowed_the_further_lists_are_searched() -> None:
    plan = Plan("auto", 8, 0.8, 0.6)
    assert knobs(plan, 10, 100_000) == (8, 0.8, 0.6)
    found = [knobs(plan, 10, allowed) for allowed in (100_000, 20_000, 10_000, 5_000)]
    assert [each.query_cut for each in found] == [8, 12, 16, 24]
    assert [each.heap_factor for each in found] == sorted((each.heap_factor for each in found), reverse=True)
    assert found[-1] == (24, 0.0, 0.0)
