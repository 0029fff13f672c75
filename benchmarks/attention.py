"""Attention policies on a real net: what they keep, what they leave out, what it does to scores and to time.

    python -m benchmarks.attention [BEIR_FOLDER] [--model NAME] [--documents 20] [--queries 4] [--rounds 5]

Prompts of mode `dense` over documents of the folder: those judged for a question and others by chance;
without a folder, of words by chance. Every policy chooses blocks in all layers below l*. Document scores
are those of the question's words at l*; agreement is with full causal attention in the same net:
Kendall's tau over all documents, and how many of the ten best are the same. Kept mass is the share of the
middle layer's attention that lies in kept blocks, mean over queries and heads, and that of the last 128
queries (the probe) by itself. Sparsity is the share of causal blocks left out.

Times are of the attention of that layer, by turns, the least processor time of all rounds:
scaled_dot_product_attention with BlockRank's mask and causal, FlexAttention compiled. Then what it costs to
choose blocks and to build masks.
"""

import argparse
import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import kendalltau
from torch import Tensor
from torch.nn.attention.flex_attention import create_block_mask

from benchmarks.machine import describe
from indexer.sources import read_documents, read_qrels, read_queries
from models.in_context.flat import Attend, causal_attention, masked_attention
from models.in_context.flex import block_mask, flex_attend
from models.in_context.items import Prompt
from models.in_context.net import InContextNet
from models.in_context.policies import FlexPrefill, Policy, Windows, kept_mass, sparse_attention, sparsity
from models.in_context.read_out import BlockRank
from models.in_context.segments import Segments, mask
from models.load import SMOLLM2
from service.commands.encoding_cache import cache_home

POLICIES: dict[str, Policy] = {
    "windows: documents": Windows(),
    "windows of 512": Windows(512),
    **{f"FlexPrefill {mass}": FlexPrefill(mass) for mass in (0.5, 0.7, 0.9, 0.95, 0.99)},
    "FlexPrefill 0.9, least 0": FlexPrefill(0.9, tokens=0),
}

Text = tuple[str, str]  # title and text
Scores = NDArray[np.float32]  # of documents


class Asked(NamedTuple):
    """A question and its candidates."""

    query: str
    documents: list[Text]


class Layer(NamedTuple):
    """What attention of one layer is given: [1, heads or kv_heads, tokens, head_dim]."""

    q: Tensor
    k: Tensor
    v: Tensor
    scale: float


@dataclass
class Watched:
    """A policy that notes what it kept of every layer."""

    policy: Policy
    sparsity: list[float] = field(default_factory=list)

    def __call__(self, q: Tensor, k: Tensor, segments: Segments) -> Tensor:
        kept = self.policy(q, k, segments)
        self.sparsity.append(sparsity(kept))
        return kept


def main() -> None:
    """Measure and print."""
    options = _options()
    torch.set_num_threads(options.threads)
    print(describe("torch", "transformers"))
    net = InContextNet.load(options.model, cache=cache_home() / "models", device="cpu", dtype=options.dtype)
    print(f"{net.name}, {net.dtype}, layer {net.layer} read, {options.threads} threads")
    asked = list(_asked(options.folder, options.documents, options.queries))
    with torch.inference_mode():
        layer, prompt = _agreement(net, asked)
        _times(layer, _segments(prompt), options.rounds)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, nargs="?")
    parser.add_argument("--model", default=SMOLLM2)
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--documents", type=int, default=20)
    parser.add_argument("--queries", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    return parser.parse_args()


def _asked(folder: Path | None, documents: int, queries: int) -> Iterator[Asked]:
    chance = random.Random(0)
    if folder is None:
        words = [
            f"{a}{b}" for a in ("lan", "tor", "mir", "sel", "vak") for b in ("o", "eth", "ine", "ard", "us")
        ]
        for _ in range(queries):
            texts = [" ".join(chance.choices(words, k=40)) for _ in range(documents)]
            yield Asked(" ".join(texts[0].split()[:6]), [("", text) for text in texts])
        return
    texts, qrels = {each.id: (each.title, each.text) for each in read_documents(folder)}, read_qrels(folder)
    judged = {query: text for query, text in read_queries(folder).items() if query in qrels}
    for query in chance.sample(sorted(judged), queries):
        known = [each for each in qrels[query] if each in texts][: documents // 2]
        others = chance.sample(sorted(set(texts) - set(known)), documents - len(known))
        chosen = [*known, *others]
        chance.shuffle(chosen)
        yield Asked(judged[query], [texts[each] for each in chosen])


def _segments(prompt: Prompt) -> Segments:
    lengths = [len(ids) for ids in prompt.documents]
    return Segments.of(len(prompt.instruction), lengths, len(prompt.question.block.ids))


def _agreement(net: InContextNet, asked: Sequence[Asked]) -> tuple[Layer, Prompt]:
    """Print what policies keep and how scores agree; the middle layer of the last prompt, and that prompt."""
    found: dict[str, list[tuple[float, ...]]] = {name: [] for name in POLICIES}
    tokens = []
    for question in asked:
        ids = [cut.ids for cut in net.document_tokens(question.documents)]
        prompt = net.prompt(question.query, ids, "dense", BlockRank(signal="words"))
        layer, full = _full(net, prompt)
        tokens.append(_segments(prompt).tokens)
        for name, policy in POLICIES.items():
            found[name].append(_row(net, prompt, layer, full, policy))
    print(f"\n{len(asked)} prompts of {min(tokens):,} to {max(tokens):,} tokens, {len(ids)} documents each\n")
    print(
        "| policy | sparsity | of the layer | its kept mass | of its probe | τ | 10 best |\n"
        "|---|---|---|---|---|---|---|"
    )
    for name, rows in found.items():
        every, one, kept, probe, tau, best = np.mean(rows, axis=0)
        print(f"| {name} | {every:.1%} | {one:.1%} | {kept:.3f} | {probe:.3f} | {tau:.3f} | {best:.2f} |")
    return layer, prompt


def _full(net: InContextNet, prompt: Prompt) -> tuple[Layer, Scores]:
    """Attention's inputs in the middle layer below l*, and document scores, under full attention."""
    kept: list[Layer] = []

    def attend(layer: int, q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
        if layer == net.layer // 2:
            kept.append(Layer(q, k, v, scale))
        return causal_attention(layer, q, k, v, scale)

    scores = _scores(net, prompt, attend)
    return kept[0], scores


def _scores(net: InContextNet, prompt: Prompt, attend: Attend) -> Scores:
    return net.flat(prompt, attend, torch.arange(_segments(prompt).tokens)).scores


def _row(net: InContextNet, prompt: Prompt, layer: Layer, full: Scores, policy: Policy) -> tuple[float, ...]:
    """Sparsity of all layers and of one, kept mass of it and of its probe, tau, share of the ten best."""
    watched, segments = Watched(policy), _segments(prompt)
    scores = _scores(net, prompt, sparse_attention(watched, segments, compiled=True))
    kept = policy(layer.q[0], layer.k[0], segments)
    mass = kept_mass(layer.q[0], layer.k[0], kept)
    same = set(np.argsort(-full)[:10]) & set(np.argsort(-scores)[:10])
    tau = float(kendalltau(full, scores).statistic)
    every = float(np.mean(watched.sparsity))
    return every, sparsity(kept), float(mass.mean()), float(mass[:, -128:].mean()), tau, len(same) / 10


def _times(layer: Layer, segments: Segments, rounds: int) -> None:
    """Print times of one layer's attention, and of masks."""
    q, k, v, scale = layer
    seen, causal = mask(segments), segments.causal()
    chosen = {name: POLICIES[name](q[0], k[0], segments) for name in ("FlexPrefill 0.9", "FlexPrefill 0.5")}
    masks = {"BlockRank's mask": block_mask(segments), "causal": block_mask(causal)}
    masks |= {name: block_mask(causal, kept) for name, kept in chosen.items()}
    runs: dict[str, Callable[[], object]] = {
        "masked SDPA": lambda: masked_attention(seen)(0, q, k, v, scale),
        "causal SDPA": lambda: causal_attention(0, q, k, v, scale),
        **{
            f"FlexAttention, {name}": lambda made=made: flex_attend(q, k, v, made, scale=scale, compiled=True)
            for name, made in masks.items()
        },
        "choosing blocks, FlexPrefill 0.9": lambda: POLICIES["FlexPrefill 0.9"](q[0], k[0], segments),
        "block mask from segments": lambda: block_mask(segments),
        "block mask of a policy": lambda: block_mask(causal, chosen["FlexPrefill 0.9"]),
    }
    best = _best(runs, rounds)
    print(
        f"\n{segments.tokens:,} tokens; {len(segments.documents)} documents; BlockRank's blocks are "
        f"{masks[next(iter(masks))].sparsity():.0f} % empty\n"
    )
    print("| one layer | ms | masked SDPA ÷ | causal SDPA ÷ |\n|---|---|---|---|")
    for name, seconds in best.items():
        ratios = [best[other] / seconds for other in ("masked SDPA", "causal SDPA")]
        print(f"| {name} | {1e3 * seconds:.1f} | {ratios[0]:.1f} | {ratios[1]:.1f} |")
    print(f"| create_block_mask | {1e3 * _create(segments):.0f} | | |")


def _best(runs: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """The least seconds of processor time of each, taken by turns; a first round is not counted."""
    best = dict.fromkeys(runs, float("inf"))
    for number in range(rounds + 1):
        for name, run in runs.items():
            began = time.process_time()
            run()
            if number:
                best[name] = min(best[name], time.process_time() - began)
    return best


def _create(segments: Segments) -> float:
    """Seconds that torch takes to find the blocks of BlockRank's mask pair by pair."""
    ids, question = segments.ids(), len(segments.documents) + 1

    def seen(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        own = (ids[query] == ids[key]) | (ids[key] == 0) | (ids[query] == question)
        return (query >= key) & own

    began = time.process_time()
    create_block_mask(seen, None, None, segments.tokens, segments.tokens, device="cpu")
    return time.process_time() - began


if __name__ == "__main__":
    main()
