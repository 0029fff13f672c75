"""Attention policies on heads whose pattern is known: what is kept can be said beforehand."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from models.in_context.flat import causal_attention, masked_attention
from models.in_context.flex import layout
from models.in_context.policies import (
    FlexPrefill,
    Policy,
    Windows,
    by_offset,
    fewest,
    kept_mass,
    root_jensen_shannon,
    sparse_attention,
    sparsity,
)
from models.in_context.segments import Segments, mask

BLOCK, COUNT = 8, 12
TOKENS = BLOCK * COUNT
PROMPT = Segments.of(8, [30, 20, 30], 8)
SHARP = 20 * math.sqrt(TOKENS)  # a score of 20 for what a query looks for, 0 for the rest

ROWS, COLUMNS = torch.arange(COUNT)[:, None], torch.arange(COUNT)
CAUSAL = ROWS >= COLUMNS
APART = ROWS - COLUMNS
TIGHT = FlexPrefill(tokens=0, block=BLOCK)


def one_hot(places: Tensor) -> Tensor:
    return torch.nn.functional.one_hot(places.clamp(min=0), TOKENS).float()


def stripe(token: int) -> tuple[Tensor, Tensor]:
    """Every query looks for one token."""
    keys = torch.zeros(TOKENS, TOKENS)
    keys[token, 0] = 1
    return SHARP * one_hot(torch.zeros(TOKENS, dtype=torch.int64))[None], keys[None]


def slash(offset: int) -> tuple[Tensor, Tensor]:
    """Every query looks for the token `offset` before it."""
    places = torch.arange(TOKENS)
    return SHARP * one_hot(places - offset)[None], one_hot(places)[None]


def halves() -> tuple[Tensor, Tensor]:
    """Queries of block b look for all tokens of block b // 2."""
    places = torch.arange(TOKENS) // BLOCK
    return SHARP * one_hot(places // 2)[None], one_hot(places)[None]


def test_a_stripe_keeps_its_column():
    """Token 16 is in block 2, and 72 to 79 before the probe's queries: 9 or 10 blocks back."""
    q, k = stripe(16)
    kept = TIGHT(q, k, PROMPT)[0]
    expected = (COLUMNS == 0) | (COLUMNS == 2) | (APART == 0) | (APART == 9) | (APART == 10)
    assert torch.equal(kept, CAUSAL & expected)
    assert kept_mass(q, k, kept[None], BLOCK)[0, 16:].min() > 0.999


def test_a_slash_keeps_its_diagonals():
    """16 tokens back is 2 blocks back, and what the probe's block 11 sees so is block 9."""
    q, k = slash(16)
    kept = TIGHT(q, k, PROMPT)[0]
    expected = (COLUMNS == 0) | (COLUMNS == 9) | (APART == 0) | (APART == 2) | (APART == 3)
    assert torch.equal(kept, CAUSAL & expected)


def test_a_slash_between_blocks_keeps_both_diagonals_that_it_crosses():
    q, k = slash(21)
    kept = TIGHT(q, k, PROMPT)[0]
    assert kept[APART == 2].all()
    assert kept[APART == 3].all()
    assert kept_mass(q, k, kept[None], BLOCK)[0, 21:].min() > 0.999


def test_blocks_that_means_tell_of_are_kept_and_no_others():
    q, k = halves()
    kept = TIGHT(q, k, PROMPT)[0]
    expected = (COLUMNS == ROWS // 2) | (COLUMNS == 0) | (APART == 0)
    assert torch.equal(kept, CAUSAL & expected)


def test_no_distance_trusts_means_never():
    q, k = halves()
    kept = FlexPrefill(distance=0.0, tokens=0, block=BLOCK)(q, k, PROMPT)[0]
    assert kept[:, 5].sum() == COUNT - 5  # what the probe looks for, as a column


def test_heads_are_judged_one_by_one_and_share_keys():
    heads = [stripe(16), halves()]
    q = torch.cat([heads[0][0], heads[0][0], heads[1][0], heads[1][0]])
    k = torch.cat([heads[0][1], heads[1][1]])
    kept = TIGHT(q, k, PROMPT)
    for head, alone in enumerate((heads[0], heads[0], heads[1], heads[1])):
        assert torch.equal(kept[head], TIGHT(*alone, PROMPT)[0])


def test_at_least_so_many_tokens_are_kept():
    q, k = halves()
    kept = FlexPrefill(tokens=4 * BLOCK, block=BLOCK)(q, k, PROMPT)[0]
    assert (kept.sum(1) >= (COLUMNS + 1).clamp(max=3)).all()
    assert kept[-1].sum() >= 4


def test_a_prompt_no_longer_than_that_is_kept_whole():
    q, k = stripe(16)
    assert torch.equal(FlexPrefill(tokens=TOKENS, block=BLOCK)(q, k, PROMPT)[0], CAUSAL)


def random_layer(tokens: int, seed: int, heads: int = 4, kv_heads: int = 2) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return (
        3 * torch.randn(heads, tokens, 8, generator=generator),
        torch.randn(kv_heads, tokens, 8, generator=generator),
    )


@settings(max_examples=40, deadline=None)
@given(
    tokens=st.integers(1, 150),
    seed=st.integers(0, 1000),
    mass=st.sampled_from([0.3, 0.6, 0.9, 0.99]),
    distance=st.sampled_from([0.0, 0.1, 1.0]),
)
def test_the_probe_keeps_its_mass(tokens: int, seed: int, mass: float, distance: float):
    q, k = random_layer(tokens, seed)
    kept = FlexPrefill(mass, distance, tokens=0, block=BLOCK)(q, k, Segments.of(0, [tokens], 0))
    probe = kept_mass(q, k, kept, BLOCK)[:, -BLOCK:].mean(1)
    assert (probe >= mass - 1e-5).all()
    rows = torch.arange(kept.shape[1])
    assert kept[:, rows, rows].all()
    assert kept[:, :, 0].all()
    assert not kept.triu(1).any()


@settings(max_examples=20, deadline=None)
@given(tokens=st.integers(1, 150), seed=st.integers(0, 1000), distance=st.sampled_from([0.0, 0.1, 1.0]))
def test_a_mass_of_1_keeps_everything_causal(tokens: int, seed: int, distance: float):
    q, k = random_layer(tokens, seed)
    kept = FlexPrefill(1.0, distance, tokens=0, block=BLOCK)(q, k, Segments.of(0, [tokens], 0))
    assert torch.equal(kept, torch.ones_like(kept).tril())
    assert sparsity(kept) == 0


def test_a_greater_mass_keeps_no_less():
    q, k = random_layer(TOKENS, 5)
    shares = [sparsity(FlexPrefill(mass, tokens=0, block=BLOCK)(q, k, PROMPT)) for mass in (0.2, 0.5, 0.8, 1)]
    assert shares == sorted(shares, reverse=True)
    assert shares[0] > shares[-1] == 0


def test_windows_are_the_rule_of_documents_in_blocks():
    q, k = random_layer(TOKENS, 1)
    kept = Windows(block=BLOCK)(q, k, PROMPT)
    assert torch.equal(kept, layout(PROMPT, BLOCK)[0].expand(4, -1, -1))
    hidden = mask(PROMPT) & ~kept[0].repeat_interleave(BLOCK, 0).repeat_interleave(BLOCK, 1)
    assert not hidden.any()


def test_one_window_is_causal_attention():
    q, k = random_layer(TOKENS, 1)
    assert torch.equal(Windows(PROMPT.tokens, BLOCK)(q, k, PROMPT)[0], CAUSAL)


def test_a_long_document_is_read_in_windows():
    """Instruction of a block, three windows of two blocks, a question of a block."""
    segments = Segments.of(2, [12], 2)
    q, k = random_layer(16, 1)
    kept = Windows(tokens=4, block=2)(q, k, segments)[0]
    assert ["".join(".x"[seen] for seen in row) for row in kept.int().tolist()] == [
        "x.......",
        "xx......",
        "xxx.....",
        "x..x....",
        "x..xx...",
        "x....x..",
        "x....xx.",
        "xxxxxxxx",
    ]


def test_fewest_takes_the_largest_until_there_is_enough():
    shares = torch.tensor([[0.125, 0.5, 0.375], [0.25, 0.25, 0.5]])
    assert fewest(shares, 0.875).tolist() == [[False, True, True], [True, True, True]]
    assert fewest(shares, 0.5).tolist() == [[False, True, False], [False, False, True]]
    assert fewest(shares, 0.5, least=2).tolist() == [[False, True, True], [True, False, True]]


def test_attention_by_how_far_back_it_goes():
    probe = torch.tensor([[0.2, 0.3, 0.5, 0.0], [0.1, 0.2, 0.3, 0.4]])
    expected = torch.tensor([[0.5, 0.3, 0.2, 0.0], [0.4, 0.3, 0.2, 0.1]])
    assert torch.equal(by_offset(probe), expected)


def test_the_distance_of_distributions():
    same, other = torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0])
    assert root_jensen_shannon(same, same) == 0
    assert root_jensen_shannon(same, other).item() == pytest.approx(math.sqrt(math.log(2)))


def test_kept_mass_of_even_attention_is_a_count():
    """All queries see all before them alike; of two blocks of 2 tokens, the second loses the first."""
    kept = torch.eye(2, dtype=torch.bool)[None]
    found = kept_mass(torch.zeros(1, 4, 2), torch.zeros(1, 4, 2), kept, block=2)
    assert torch.allclose(found, torch.tensor([[1, 1, 1 / 3, 1 / 2]]))
    assert sparsity(kept) == pytest.approx(1 / 3)


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
def test_attention_by_a_policy_sees_what_it_keeps():
    """Two documents of a block each: the second does not see the first, the question's block sees both."""
    segments = Segments.of(0, [128, 128], 5)
    q, k = random_layer(segments.tokens, 3)
    v = torch.randn(k.shape, generator=torch.Generator().manual_seed(4))
    found = sparse_attention(Windows(), segments)(0, q[None], k[None], v[None], 0.3)
    layers = [each[None] for each in (q, k, v)]
    assert (found - masked_attention(mask(segments))(0, *layers, 0.3)).abs().max() <= 1e-5
    every = sparse_attention(FlexPrefill(mass=1), segments)(0, q[None], k[None], v[None], 0.3)
    assert (every - causal_attention(0, *layers, 0.3)).abs().max() <= 1e-5


@pytest.mark.parametrize("policy", [Windows(), FlexPrefill()])
def test_tokens_of_another_prompt_are_refused(policy: Policy):
    q, k = random_layer(20, 1)
    with pytest.raises(ValueError, match=r"20 tokens, but the prompt has 96"):
        policy(q, k, PROMPT)
    with pytest.raises(ValueError, match="are not of one layer"):
        policy(q[:3], k, Segments.of(0, [20], 0))


@pytest.mark.parametrize("wrong", [{"mass": 0.0}, {"mass": 1.1}, {"distance": -1.0}, {"block": 0}])
def test_impossible_targets_are_refused(wrong: dict[str, float]):
    with pytest.raises(ValueError, match=r"a mass of|too small"):
        FlexPrefill(**wrong)  # type: ignore[arg-type]
