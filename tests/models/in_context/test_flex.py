"""FlexAttention's masks from offsets: the same as torch finds by trying every pair."""

from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.attention.flex_attention import create_block_mask
from torch.nn.functional import scaled_dot_product_attention

from models.in_context.flex import block_mask, flex_attend, layout
from models.in_context.segments import Segments, mask

# What it warns of, that eager attention computes all pairs, is what a reference is for.
pytestmark = pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")

PROMPTS = st.builds(
    Segments.of, st.integers(0, 9), st.lists(st.integers(1, 12), min_size=1, max_size=6), st.integers(0, 9)
)


def pooled(seen: Tensor, block: int) -> tuple[Tensor, Tensor]:
    """Blocks [queries, keys] with any pair, and with all of block · block pairs, by looking at every pair."""
    sides = [torch.arange(len(seen)) // block] * 2
    counts = torch.zeros(int(sides[0][-1]) + 1, int(sides[0][-1]) + 1, dtype=torch.int64)
    counts.index_put_((sides[0][:, None], sides[1][None]), seen.long(), accumulate=True)
    return counts > 0, counts == block * block


@given(PROMPTS, st.integers(1, 8))
def test_the_layout_is_what_all_pairs_say(segments: Segments, block: int):
    some, full = layout(segments, block)
    expected_some, expected_full = pooled(mask(segments), block)
    assert torch.equal(some, expected_some)
    if block > 1:  # blocks of one pair: on the diagonal full, which is as well not said
        assert torch.equal(full, expected_full)


def test_a_layout_that_can_be_read():
    """Instruction 2, documents of 4 and 2, question 4, blocks of 2: the second document skips the first's."""
    some, full = layout(Segments.of(2, [4, 2], 4), 2)
    picture = [
        "".join(".+#"[s + f] for s, f in zip(*rows, strict=True))
        for rows in zip(some.int().tolist(), full.int().tolist(), strict=True)
    ]
    assert picture == [
        "+.....",
        "#+....",
        "##+...",
        "#..+..",
        "####+.",
        "#####+",
    ]


def rule_of(segments: Segments) -> Callable[..., Tensor]:
    ids, question = segments.ids(), len(segments.documents) + 1

    def rule(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        same = (ids[query] == ids[key]) | (ids[key] == 0) | (ids[query] == question)
        return (query >= key) & same

    return rule


@pytest.mark.parametrize(
    "segments",
    [Segments.of(48, [100] * 4, 40), Segments.of(0, [128, 256], 128), Segments.of(200, [300, 1, 1, 90], 0)],
    ids=lambda segments: str(segments.lengths),
)
def test_blocks_of_128_are_those_of_create_block_mask(segments: Segments):
    tokens = segments.tokens
    expected = create_block_mask(rule_of(segments), None, None, tokens, tokens, device="cpu")
    ours = block_mask(segments)
    assert torch.equal(ours.to_dense(), expected.to_dense())
    for name in ("kv_num_blocks", "kv_indices", "full_kv_num_blocks", "full_kv_indices"):
        assert torch.equal(getattr(ours, name), getattr(expected, name)), name
    assert ours.seq_lengths == expected.seq_lengths
    assert ours.sparsity() == expected.sparsity()


def draw(
    segments: Segments, heads: int = 4, kv_heads: int = 2, dim: int = 16
) -> tuple[Tensor, Tensor, Tensor]:
    random = torch.Generator().manual_seed(1)
    sizes = (heads, kv_heads, kv_heads)
    q, k, v = (torch.randn(1, size, segments.tokens, dim, generator=random) for size in sizes)
    return q, k, v


def reference(q: Tensor, k: Tensor, v: Tensor, seen: Tensor, scale: float | None = None) -> Tensor:
    return scaled_dot_product_attention(q, k, v, attn_mask=seen, scale=scale, enable_gqa=True)


PROMPT = Segments.of(20, [70, 1, 150], 30)


@pytest.mark.parametrize("scale", [None, 0.5])
def test_attention_is_masked_attention(scale: float | None):
    q, k, v = draw(PROMPT)
    found = flex_attend(q, k, v, block_mask(PROMPT), scale=scale)
    assert (found - reference(q, k, v, mask(PROMPT), scale)).abs().max() <= 1e-5


def test_as_one_document_it_is_causal_attention():
    q, k, v = draw(PROMPT)
    found = flex_attend(q, k, v, block_mask(PROMPT.causal()))
    causal = scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
    assert (found - causal).abs().max() <= 1e-5


def diagonal(heads: int, count: int) -> Tensor:
    return torch.eye(count, dtype=torch.bool).expand(heads, count, count).clone()


def test_blocks_that_were_not_kept_are_not_seen():
    """Head 0 keeps all, head 1 the diagonal, so its queries see their own block of 64 and nothing else."""
    kept = diagonal(2, 5)
    kept[0] = True
    q, k, v = draw(PROMPT, heads=2)
    found = flex_attend(q, k, v, block_mask(PROMPT, kept, block=64))
    near = torch.arange(PROMPT.tokens) // 64
    seen = torch.stack([mask(PROMPT), mask(PROMPT) & (near[:, None] == near)])
    assert (found - reference(q, k, v, seen)).abs().max() <= 1e-5


def test_blocks_that_were_not_kept_are_left_out_of_the_lists():
    kept = diagonal(2, 5)
    kept[0] = True
    found = block_mask(PROMPT, kept, block=64).to_dense()[0]
    assert torch.equal(found[0].bool(), layout(PROMPT, 64)[0])
    assert torch.equal(found[1].bool(), kept[1])


def test_kept_blocks_of_another_prompt_are_refused():
    with pytest.raises(ValueError, match=r"kept blocks are \[2, 4, 4\]; needed are \[heads, 5, 5\]"):
        block_mask(PROMPT, diagonal(2, 4), block=64)


@pytest.mark.slow
def test_a_compiled_kernel_gives_the_same_for_any_prompt_with_and_without_a_policy():
    for segments in (PROMPT, Segments.of(48, [100] * 5, 40), Segments.of(10, [300], 0)):
        q, k, v = draw(segments)
        for kept in (None, layout(segments)[0].expand(4, -1, -1)):
            found = flex_attend(q, k, v, block_mask(segments, kept), compiled=True)
            assert (found - reference(q, k, v, mask(segments))).abs().max() <= 1e-5
