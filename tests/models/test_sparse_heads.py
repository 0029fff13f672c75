import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from models.sparse_heads import (
    Projection,
    activate,
    at_last,
    literal_residual,
    own_terms,
    pool,
    pool_projected,
    voters,
)

LOGITS = torch.tensor([[[1.0, -2.0, 0.0], [0.5, 3.0, -1.0]]])
ALL = torch.ones(1, 2, dtype=torch.bool)

numbers = st.integers(-8, 8).map(lambda number: number / 4)


def close(found: Tensor, expected: object) -> None:
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float32), atol=5e-5, rtol=0)


def test_max_pooling_takes_the_largest_and_sum_pooling_adds_logarithms() -> None:
    close(pool(LOGITS, ALL, "max", "log1p"), [[0.6931, 1.3863, 0.0]])
    close(pool(LOGITS, ALL, "sum", "log1p"), [[1.0986, 1.3863, 0.0]])
    close(pool(LOGITS, ALL, "last", "log1p"), [[math.log1p(0.5), 1.3863, 0.0]])


def test_activations_of_a_half_two_and_twenty() -> None:
    logits = torch.tensor([0.5, 2.0, 20.0, -1.0])
    close(activate(logits, "log1p"), [0.4055, 1.0986, 3.0445, 0.0])
    close(activate(logits, "log1p_log1p"), [0.3404, 0.7413, 1.3974, 0.0])
    close(activate(logits, "relu"), [0.5, 2.0, 20.0, 0.0])


@pytest.mark.parametrize("pooling", ["max", "sum", "last"])
def test_ten_positions_without_a_vote_change_nothing(pooling: str) -> None:
    more = torch.cat([LOGITS, torch.full((1, 10, 3), 9.0)], 1)
    voting = torch.arange(12)[None] < 2
    assert torch.equal(pool(more, voting, pooling, "log1p"), pool(LOGITS, ALL, pooling, "log1p"))


def test_a_text_without_votes_weighs_nothing() -> None:
    nobody = torch.zeros(1, 2, dtype=torch.bool)
    for pooling in ("max", "sum", "last"):
        close(pool(LOGITS, nobody, pooling, "log1p"), [[0.0, 0.0, 0.0]])


@given(st.lists(st.lists(numbers, min_size=3, max_size=3), min_size=1, max_size=4))
def test_a_further_token_never_lowers_a_weight(table: list[list[float]]) -> None:
    logits = torch.tensor([table])
    voting = torch.ones(logits.shape[:2], dtype=torch.bool)
    fewer = voting.clone()
    fewer[:, -1] = False
    for pooling in ("max", "sum"):
        assert (pool(logits, voting, pooling, "log1p") >= pool(logits, fewer, pooling, "log1p")).all()


@given(st.data())
def test_the_vocabulary_in_stretches_gives_what_it_gives_at_once(data: st.DataObject) -> None:
    voting = torch.tensor(data.draw(st.lists(st.lists(st.booleans(), min_size=4, max_size=4), min_size=1)))
    states = torch.tensor(
        data.draw(st.lists(numbers, min_size=voting.numel() * 2, max_size=voting.numel() * 2))
    )
    states = states.view(*voting.shape, 2)
    weight = torch.tensor([[1.0, 0.0], [-1.0, 2.0], [0.5, 0.5], [0.0, -1.0], [2.0, 1.0]])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("models.sparse_heads.CELLS", data.draw(st.sampled_from([1, 16, 1000])))
        for bias in (None, torch.tensor([0.0, 1.0, -1.0, 0.5, 0.25])):
            projection = Projection(weight, bias)
            for pooling in ("max", "sum", "last"):
                expected = pool(projection(states), voting, pooling, "log1p")
                found = pool_projected(states, voting, projection, pooling, "log1p")
                assert torch.equal(found, expected)


def test_voters_are_filled_up_with_a_texts_own_first() -> None:
    states = torch.arange(6.0).view(2, 3, 1)
    voting = torch.tensor([[False, True, True], [False, False, True]])
    assert voters(states, voting)[:, :, 0].tolist() == [[1.0, 2.0], [5.0, 5.0]]


def test_the_last_position_is_the_last_that_votes() -> None:
    values = torch.tensor([[[1.0], [2.0], [3.0]], [[4.0], [5.0], [6.0]]])
    voting = torch.tensor([[True, True, False], [False, False, False]])
    assert at_last(values, voting).tolist() == [[2.0], [0.0]]


def test_a_term_that_comes_twice_weighs_as_its_heavier_occurrence() -> None:
    ids = torch.tensor([[4, 2, 4, 0]])
    weights = torch.tensor([[0.5, 1.0, 0.75, 9.0]])
    voting = torch.tensor([[True, True, True, False]])
    close(own_terms(ids, weights, voting, 5), [[0.0, 0.0, 1.0, 0.0, 0.75]])


@given(st.lists(st.tuples(st.integers(0, 5), st.floats(0, 4, width=32)), min_size=1, max_size=8))
def test_term_weights_lie_on_the_terms_of_the_text(tokens: list[tuple[int, float]]) -> None:
    ids, weights = (
        torch.tensor([[token for token, _ in tokens]]),
        torch.tensor([[each for _, each in tokens]]),
    )
    found = own_terms(ids, weights, torch.ones(ids.shape, dtype=torch.bool), 6)[0]
    for term in range(6):
        assert found[term] == max([each for token, each in tokens if token == term], default=0.0)


def test_binary_vectors_score_the_words_they_share() -> None:
    first, second = torch.tensor([[1, 2, 2, 3]]), torch.tensor([[2, 3, 3, 4]])
    texts = [own_terms(ids, torch.full((1, 4), 0.5), torch.ones(1, 4), 6) for ids in (first, second)]
    assert float((texts[0] * texts[1]).sum()) == 0.5 * 0.5 * 2


def test_literal_terms_gain_what_they_lack() -> None:
    base, compensation = torch.tensor([[0.2, 1.0, 0.0, 0.5]]), torch.tensor([[0.3, 0.9, 0.1, 0.4]])
    literal = torch.tensor([[True, True, False, False]])
    close(literal_residual(base, compensation, literal), [[0.8, 1.0, 0.0, 0.5]])


def test_the_most_compensated_term_may_be_one_that_is_not_literal() -> None:
    base, compensation = torch.tensor([[0.2, 0.0]]), torch.tensor([[0.3, 0.9]])
    close(literal_residual(base, compensation, torch.tensor([[True, False]])), [[0.8, 0.0]])


@given(st.lists(st.tuples(st.floats(0, 4), st.floats(-4, 4), st.booleans()), min_size=1, max_size=6))
def test_the_residual_only_adds(table: list[tuple[float, float, bool]]) -> None:
    base, compensation, literal = (torch.tensor([column]) for column in zip(*table, strict=True))
    assert (literal_residual(base, compensation, literal) >= base).all()
