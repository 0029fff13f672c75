import pytest

from models.training.measures import ndcg


def test_a_relevant_document_at_the_top_the_second_place_and_beyond():
    assert ndcg([((3.0, 2.0), (True, False))]) == 1.0
    assert ndcg([((2.0, 3.0), (True, False))]) == pytest.approx(1 / 1.58496, abs=1e-5)
    assert ndcg([((2.0, 3.0), (True, False))], depth=1) == 0.0
    assert ndcg([((3.0, 2.0), (True, False)), ((2.0, 3.0), (True, False))]) == pytest.approx(
        0.81546, abs=1e-5
    )


def test_two_relevant_documents():
    # gains 1, 0, 1 of at best 1, 1: (1 + 1/2) / (1 + 1/log2(3))
    assert ndcg([((3.0, 2.0, 1.0), (True, False, True))]) == pytest.approx(1.5 / 1.63093, abs=1e-5)


def test_what_tells_nothing_apart_earns_nothing():
    assert ndcg([((1.0,) * 11, (True,) + (False,) * 10)]) == 0.0


def test_groups_without_an_answer_are_left_out():
    assert ndcg([((1.0, 2.0), (False, False)), ((3.0, 2.0), (True, False))]) == 1.0
    assert ndcg([((1.0, 2.0), (False, False))]) == 0.0
