"""Block-sparse attention by FlexAttention: masks of blocks from the offsets of segments alone.

FlexAttention skips the blocks of 128 by 128 pairs where nobody may look, and asks the rule pair by pair only
in those that are neither empty nor full. torch's own `create_block_mask` finds out which by evaluating the
rule for every pair; but segments are runs of tokens, so where they begin says the same.

What a mask's rule says and what its blocks say are the same, also where a policy leaves blocks out: the eager
implementation asks the rule for all pairs and knows no blocks.

FlexAttention gives its output alone: document scores are a product of queries and keys of their own.
"""

from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, flex_attention
from torch.nn.functional import pad

from models.in_context.segments import Segments

BLOCK = 128  # tokens; FlexAttention's own size

Kernel = Callable[[Tensor, Tensor, Tensor, BlockMask, float | None], Tensor]
Rule = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]  # batch, head, query, key: may it look?


def block_count(tokens: int, block: int = BLOCK) -> int:
    """How many blocks hold this many tokens."""
    return -(-tokens // block)


def layout(segments: Segments, block: int = BLOCK) -> tuple[Tensor, Tensor]:
    """Which blocks hold a pair that may look, and which hold no other: bool [queries, keys] each, in blocks.

    A block that reaches over the end of the prompt is not full. Computed on the processor.
    """
    count = block_count(segments.tokens, block)
    begins = pad(_begins(segments), (0, count * block - segments.tokens), value=-1).view(count, block)
    latest, earliest = begins.amax(1)[:, None], begins.where(begins >= 0, segments.tokens).amin(1)[:, None]
    first = torch.arange(count) * block
    end = first + block
    before = first < first[:, None]
    some = before & ((first < segments.instruction) | (earliest < end)) | torch.eye(count, dtype=torch.bool)
    full = before & ((end <= segments.instruction) | (latest <= first.clamp(min=segments.instruction)))
    if segments.tokens % block:
        full[-1] = False
    return some, full


def block_mask(
    segments: Segments, kept: Tensor | None = None, *, device: torch.device | str = "cpu", block: int = BLOCK
) -> BlockMask:
    """The mask of a prompt by BlockRank's rule, less the blocks that a policy did not keep.

    Args:
        segments: parts of the prompt; `segments.causal()` for ordinary causal attention.
        kept: bool [heads, queries, keys] in blocks, as a policy of `models.in_context.policies` gives it.
        device: where attention is computed.
        block: tokens of a block.

    Raises:
        ValueError: `kept` has another number of blocks.

    """
    some, full = layout(segments, block)
    if kept is not None:
        _check(kept, len(some))
        some, full = some & kept.cpu(), full & kept.cpu()
    partial_number, partial = _ordered(some & ~full, device)
    full_number, whole = _ordered(full, device)
    return BlockMask.from_kv_blocks(
        partial_number,
        partial,
        full_number,
        whole,
        BLOCK_SIZE=block,
        mask_mod=_rule(segments, kept, device, block),
        seq_lengths=(segments.tokens, segments.tokens),
        compute_q_blocks=False,  # wanted by backward passes only
    )


def flex_attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: BlockMask,
    *,
    scale: float | None = None,
    compiled: bool | None = None,
) -> Tensor:
    """Attention of q [batch, heads, tokens, dim] over k, v [batch, kv_heads, tokens, dim]; shaped like q.

    Args:
        q: queries, rotated.
        k: keys, rotated; head h of q reads head h // (heads // kv_heads) of them.
        v: values.
        mask: of as many tokens, on the same device.
        scale: of the products; 1/sqrt(dim) if not given.
        compiled: by a compiled kernel, which skips blocks; the first call takes seconds, on a processor up to
            minutes. Eager attention computes all pairs. If not given: compiled on CUDA.

    """
    attend = _compiled() if (q.is_cuda if compiled is None else compiled) else _eager
    return attend(q, k, v, mask, scale)


def _eager(q: Tensor, k: Tensor, v: Tensor, mask: BlockMask, scale: float | None) -> Tensor:
    return flex_attention(q, k, v, block_mask=mask, scale=scale, enable_gqa=q.shape[1] != k.shape[1])


@cache
def _compiled() -> Kernel:
    """Compiled once for all lengths, and again for what is no length: number formats, heads, a single block.

    Beyond the limit it raises, where torch would go on without compiling.
    """
    kernel: Kernel = torch.compile(_eager, dynamic=True, fullgraph=True, recompile_limit=32)  # type: ignore[call-overload]
    return kernel


def _begins(segments: Segments) -> Tensor:
    """Where a token's view begins, if it sees the instruction besides: int64 [tokens]."""
    starts = torch.tensor(segments.starts[:-1])
    starts[-1] = 0  # the question sees everything
    return starts.repeat_interleave(torch.tensor(segments.lengths))


def _rule(segments: Segments, kept: Tensor | None, device: torch.device | str, block: int) -> Rule:
    """The rule for a pair of tokens. Numbers of a prompt are tensors: as such they are not compiled in."""
    begins = _begins(segments).to(device, torch.int32)
    shared = torch.arange(segments.tokens, device=device) < segments.instruction

    def seen(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return (key <= query) & ((key >= begins[query]) | shared[key])

    if kept is None:
        return seen
    left = kept.to(device)

    def seen_and_kept(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return seen(batch, head, query, key) & left[head, query // block, key // block]

    return seen_and_kept


def _ordered(chosen: Tensor, device: torch.device | str) -> tuple[Tensor, Tensor]:
    """How many blocks a row has, int32 [1, heads, rows], and which, in front: [1, heads, rows, rows]."""
    heads = chosen if chosen.dim() == 3 else chosen[None]
    order = heads.int().argsort(dim=-1, descending=True, stable=True)
    return heads.sum(-1, dtype=torch.int32)[None].to(device), order.to(device, torch.int32)[None]


def _check(kept: Tensor, count: int) -> None:
    if kept.dim() != 3 or tuple(kept.shape[1:]) != (count, count):
        raise ValueError(f"kept blocks are {list(kept.shape)}; needed are [heads, {count}, {count}]")
