"""Attention policies: which blocks of queries and keys are worth computing.

A policy looks at the queries and keys of a layer and names the blocks to keep. It aims at a share of the
attention, its mass, rather than at a number of blocks: how many that takes differs between heads and prompts.
What it keeps becomes a mask by `models.in_context.flex.block_mask`. Blocks on the diagonal are always kept,
so that every query sees something; blocks above it never are.

A new policy is a function of the protocol's shape. What one really keeps `kept_mass` says, at full cost.
"""

import math
from dataclasses import dataclass, fields
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn.functional import pad

from models.in_context.flat import Attend
from models.in_context.flex import BLOCK, block_count, block_mask, flex_attend, layout
from models.in_context.segments import Segments


class Policy(Protocol):
    """Which blocks of a prompt to keep."""

    def __call__(self, q: Tensor, k: Tensor, segments: Segments) -> Tensor:
        """The blocks kept, bool [heads, queries, keys] in blocks of 128 tokens, on the device of q.

        Args:
            q: queries of all tokens, rotated: [heads, tokens, head_dim].
            k: keys, rotated: [kv_heads, tokens, head_dim]; head h reads key head h // (heads // kv_heads).
            segments: what the tokens are.

        Raises:
            ValueError: shapes that do not fit one another.

        """
        ...


@dataclass(frozen=True)
class Windows:
    """Parallel context windows (Ratner et al., ACL 2023, arXiv 2212.10947): a window sees itself alone.

    Windows are the documents, which is BlockRank's rule, or of `tokens` each, for one long document. The
    instruction is seen by all and the question sees all. Queries and keys are not looked at, so no mass is
    aimed at. Windows end within blocks: neighbours see one another in the blocks that they share, unless the
    mask is that of `segments.windows(tokens)`. One window is causal attention.
    """

    tokens: int | None = None
    block: int = BLOCK

    def __call__(self, q: Tensor, k: Tensor, segments: Segments) -> Tensor:
        """See Policy."""
        _check(q, k, segments)
        windows = segments if self.tokens is None else segments.windows(self.tokens)
        return layout(windows, self.block)[0].to(q.device).repeat(len(q), 1, 1)


@dataclass(frozen=True)
class FlexPrefill:
    """Blocks by the attention of the prompt's last queries (Lai et al., ICLR 2025, arXiv 2502.20766).

    The last `block` queries, the probe, attend for real. Of each head it is asked whether mean queries
    and mean keys of blocks would have told the probe's attention: if the distance of both distributions
    over blocks (root of the Jensen-Shannon divergence, natural logarithm) is below `distance`, they are
    trusted for all queries, and each block of queries keeps the fewest blocks of keys that have the mass
    ("query-aware"). Otherwise the probe's pattern is taken to hold everywhere: the fewest columns and the
    fewest diagonals, in blocks, that have the mass of the probe, together ("vertical-slash").

    At least `tokens` are kept of columns and of diagonals, or for each block of queries; the first block
    and the diagonal always. With a mass of 1 everything is. Of the probe's own attention, mean over its
    queries, at least the mass is kept in either pattern; of other queries' it is expected only.

    Differs from the authors' code in keeping more: a query-aware head reaches its mass in each block of
    queries rather than over all of them, and in the probe's by its real attention; a diagonal that
    crosses two blocks keeps both. And columns and diagonals are chosen as blocks, where theirs counts
    tokens and divides.
    """

    mass: float = 0.9
    distance: float = 0.1
    tokens: int = 512
    block: int = BLOCK

    def __post_init__(self) -> None:
        """ValueError: a mass that is no share, or limits that are none."""
        if not 0 < self.mass <= 1:
            raise ValueError(f"a mass of {self.mass}: it has to be above 0 and at most 1")
        if self.distance < 0 or self.tokens < 0 or self.block < 1:
            raise ValueError(f"distance {self.distance}, tokens {self.tokens}, block {self.block}: too small")

    def __call__(self, q: Tensor, k: Tensor, segments: Segments) -> Tensor:
        """See Policy."""
        _check(q, k, segments)
        count = block_count(segments.tokens, self.block)
        causal = _causal(count, q.device)
        if self.mass == 1 or count <= max(self._least, 2):
            return causal.repeat(len(q), 1, 1)
        probe = _attention(q[:, -self.block :], k)
        columns = _pooled(probe.mean(1), self.block)
        guess = _mean_scores(q[:, -self.block :].mean(1, keepdim=True), k, self.block)[:, 0].softmax(-1)
        trusted = root_jensen_shannon(guess, columns) < self.distance
        touched = (segments.tokens - self.block) // self.block  # the probe may begin inside a block
        kept = torch.empty(len(q), count, count, dtype=torch.bool, device=q.device)
        kept[~trusted] = self._vertical_slash(probe[~trusted], columns[~trusted])
        means = _mean_scores(_means(q, self.block), k, self.block)
        kept[trusted] = self._query_aware(means[trusted], columns[trusted], touched)
        kept[:, :, 0] = True
        return (kept | torch.eye(count, dtype=torch.bool, device=q.device)) & causal

    @property
    def _least(self) -> int:
        return block_count(self.tokens, self.block)

    def _vertical_slash(self, probe: Tensor, columns: Tensor) -> Tensor:
        """Blocks by the columns and diagonals of the probe's attention [heads, probe, tokens]."""
        vertical = fewest(columns, self.mass, self._least)
        offsets = _pooled(by_offset(probe).mean(1), self.block)
        chosen = fewest(offsets, self.mass, self._least)
        # A pair o tokens apart lies o // block blocks apart, or one more.
        slash = chosen | pad(chosen[:, :-1], (1, 0))
        places = torch.arange(slash.shape[1], device=slash.device)
        apart = (places[:, None] - places).clamp(min=0)
        return vertical[:, None] | slash[:, apart]

    def _query_aware(self, means: Tensor, columns: Tensor, touched: int) -> Tensor:
        """Blocks by the scores of means [heads, queries, keys], from row `touched` on by `columns` too."""
        shares = means.masked_fill(~_causal(means.shape[1], means.device), -math.inf).softmax(-1)
        kept = fewest(shares, self.mass, self._least)
        kept[:, touched:] |= fewest(columns, self.mass, self._least)[:, None]
        return kept


def policy_from_json(value: Any) -> Windows | FlexPrefill:
    """The policy of a JSON object: its `kind`, `windows` or `flex_prefill`, and fields. ValueError."""
    kinds: dict[str, type[Windows] | type[FlexPrefill]] = {"windows": Windows, "flex_prefill": FlexPrefill}
    if not isinstance(value, dict) or value.get("kind") not in kinds:
        raise ValueError(f"a policy is an object whose kind is one of {', '.join(kinds)}, not {value!r}")
    kind = kinds[value["kind"]]
    known = {field.name for field in fields(kind)} - {"block"}
    given = {name: each for name, each in value.items() if name != "kind"}
    if unknown := sorted(set(given) - known):
        raise ValueError(f"the policy {value['kind']} has no {', '.join(unknown)}; it has {', '.join(known)}")
    for name, each in given.items():
        if (
            isinstance(each, bool)
            or not isinstance(each, int | float)
            or not math.isfinite(each)
            or each <= 0
        ):
            raise ValueError(f"{name} of the policy {value['kind']} is a number above 0, not {each!r}")
    return kind(**given)


def policy_to_json(policy: Windows | FlexPrefill) -> dict[str, Any]:
    """The JSON object of a policy."""
    kind = "windows" if isinstance(policy, Windows) else "flex_prefill"
    given = {field.name: getattr(policy, field.name) for field in fields(policy) if field.name != "block"}
    return {"kind": kind, **{name: each for name, each in given.items() if each is not None}}


def sparse_attention(policy: Policy, segments: Segments, *, compiled: bool | None = None) -> Attend:
    """Causal attention to the blocks that a policy keeps, chosen anew in every layer.

    `compiled` as in `models.in_context.flex.flex_attend`. The policy's blocks are of 128 tokens.
    """
    rule = segments.causal()

    def attend(layer: int, q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
        kept = policy(q[0], k[0], segments)
        return flex_attend(q, k, v, block_mask(rule, kept, device=q.device), scale=scale, compiled=compiled)

    return attend


def fewest(shares: Tensor, mass: float, least: int = 1) -> Tensor:
    """The fewest places of each row that have `mass` of its sum, but `least` at least: bool, like shares.

    Among equals, the first are taken. With a mass of 1, places of share 0 may be left out.
    """
    ordered, order = shares.double().sort(dim=-1, descending=True, stable=True)
    before = ordered.cumsum(-1) - ordered
    wanted = before < mass * ordered.sum(-1, keepdim=True)
    wanted[..., :least] = True
    return torch.zeros_like(wanted).scatter(-1, order, wanted)


def by_offset(probe: Tensor) -> Tensor:
    """Attention of the last p queries [..., p, tokens] by how far back the key is: [..., p, tokens].

    Place o of a row has what its query gives to the key o tokens before it.
    """
    count, tokens = probe.shape[-2:]
    own = torch.arange(tokens - count, tokens, device=probe.device)[:, None]
    key = own - torch.arange(tokens, device=probe.device)
    return probe.gather(-1, key.clamp(min=0).expand(probe.shape)).masked_fill(key < 0, 0.0)


def root_jensen_shannon(p: Tensor, q: Tensor) -> Tensor:
    """The root of the Jensen-Shannon divergence of two distributions [..., n], natural logarithm: [...]."""
    middle = ((p + q) / 2).clamp(min=torch.finfo(p.dtype).tiny)
    divergence = (torch.xlogy(p, p / middle) + torch.xlogy(q, q / middle)).sum(-1) / 2
    return divergence.clamp(min=0).sqrt()


def kept_mass(q: Tensor, k: Tensor, kept: Tensor, block: int = BLOCK) -> Tensor:
    """The share of each query's causal attention that lies in kept blocks, float32 [heads, tokens].

    Computes all attention, a block of queries at a time.
    """
    shares = []
    for row, begin in enumerate(range(0, q.shape[1], block)):
        end = min(begin + block, q.shape[1])
        attention = _attention(q[:, begin:end], k[:, :end])
        inside = kept[:, row].repeat_interleave(block, dim=-1)[:, None, :end]
        shares.append((attention * inside).sum(-1))
    return torch.cat(shares, dim=1)


def sparsity(kept: Tensor) -> float:
    """The share of blocks on or below the diagonal that are not kept."""
    causal = _causal(kept.shape[-1], kept.device)
    return 1 - float((kept & causal).sum()) / (len(kept) * float(causal.sum()))


def _attention(q: Tensor, k: Tensor) -> Tensor:
    """Causal attention of the last queries [heads, p, dim] over all keys: float32 [heads, p, tokens]."""
    heads, count, dim = q.shape
    tokens = k.shape[1]
    grouped = q.reshape(len(k), -1, dim).float()  # heads of one key head lie side by side
    scores = (grouped @ k.float().mT / math.sqrt(dim)).view(heads, count, tokens)
    own = torch.arange(tokens - count, tokens, device=q.device)
    later = torch.arange(tokens, device=q.device) > own[:, None]
    return scores.masked_fill(later, -math.inf).softmax(-1)


def _mean_scores(q: Tensor, k: Tensor, block: int) -> Tensor:
    """Products of queries [heads, n, dim] and mean keys, scaled: float32 [heads, n, blocks]."""
    keys = _means(k, block).repeat_interleave(len(q) // len(k), dim=0)
    return q.float() @ keys.mT / math.sqrt(q.shape[-1])


def _means(x: Tensor, block: int) -> Tensor:
    """Means of blocks of tokens, the last maybe shorter: [heads, t, dim] to float32 [heads, blocks, dim]."""
    heads, tokens, dim = x.shape
    count = block_count(tokens, block)
    sums = pad(x.float(), (0, 0, 0, count * block - tokens)).view(heads, count, block, dim).sum(2)
    sizes = torch.full((count, 1), block, device=x.device)
    sizes[-1] -= count * block - tokens
    return sums / sizes


def _pooled(shares: Tensor, block: int) -> Tensor:
    """Sums of blocks of places: [heads, tokens] to [heads, blocks]."""
    heads, tokens = shares.shape
    count = block_count(tokens, block)
    return pad(shares, (0, count * block - tokens)).view(heads, count, block).sum(2)


def _causal(count: int, device: torch.device) -> Tensor:
    return torch.ones(count, count, dtype=torch.bool, device=device).tril()


def _check(q: Tensor, k: Tensor, segments: Segments) -> None:
    if (
        q.dim() != 3
        or k.dim() != 3
        or q.shape[1] != k.shape[1]
        or q.shape[2] != k.shape[2]
        or len(q) % len(k)
    ):
        raise ValueError(f"queries {list(q.shape)} and keys {list(k.shape)} are not of one layer")
    if q.shape[1] != segments.tokens:
        raise ValueError(f"queries of {q.shape[1]} tokens, but the prompt has {segments.tokens}")
