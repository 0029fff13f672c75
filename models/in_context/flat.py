"""How a whole prompt in one sequence is attended to: as any decoder does, by a rule, or by a policy's
blocks.
"""

from collections.abc import Callable

from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

Attend = Callable[[int, Tensor, Tensor, Tensor, float], Tensor]
"""Layer, q [1, heads, t, d], k and v [1, kv_heads, t, d], scale: the like of q."""


def causal_attention(layer: int, q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
    """Every token sees what is before it."""
    return scaled_dot_product_attention(q, k, v, is_causal=True, scale=scale, enable_gqa=True)


def masked_attention(seen: Tensor) -> Attend:
    """Every token sees what `seen`, bool [t, t] or [heads, t, t], says. All pairs are computed."""

    def attend(layer: int, q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
        return scaled_dot_product_attention(q, k, v, attn_mask=seen, scale=scale, enable_gqa=True)

    return attend
