"""A language model learns to look at what answers: LoRA on the layers up to l*, trained by attention alone.

BlockRank (2025, arXiv 2510.05396) adds to next-token prediction a contrastive loss on attention itself: the
share S_d of the attention from the question's signal tokens at layer l* that falls on document d should be
largest for the relevant one,

    loss = -log( exp(S_relevant / tau) / sum over d of exp(S_d / tau) ),  tau = 0.05.

Serving by attention needs no next token, so this is the whole loss here, and layers above l* never run. One
step reads the documents of all its questions once and asks each question over all of them, in two modes:
`keys`, where the question meets documents at l* only, and `cached`, where it sees them in every layer. Some
of the steps are of mode `query_aware`, where the instruction holds the question and documents must be read
for it alone.
"""

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from models.in_context.attention import Alone, Reached, grouped
from models.in_context.decoder import Decoder, Read
from models.in_context.items import Block, Mode
from models.in_context.layout import Layout
from models.in_context.opened import load_model, opened
from models.in_context.read_out import BlockRank
from models.in_context.recipe import FILE, Recipe, recipe_to_json
from models.in_context.states import States
from models.precision import fast_dtype
from models.training.fit import Options, Run, Student, fit
from models.training.groups import Group, sample
from models.training.lora import put_lora, save_lora
from models.training.losses import distil, ensemble
from models.training.measures import ndcg

log = logging.getLogger(__name__)

TEMPERATURE = 0.05
TOGETHER: tuple[Mode, ...] = ("keys", "cached")
"""Modes in which documents are read once for all questions."""

ADAPTER = "adapter"
NEVER = ("self_attn.v_proj", "self_attn.o_proj", "mlp")
"""What of layer l* is not computed: attention is read of its queries and keys."""


@dataclass(frozen=True, kw_only=True)
class InContextOptions(Options):
    """`layer` is l*, `rank` that of LoRA, `documents` are those a question brings into a step: the relevant
    one, and others of its group by chance. `aware` is the share of steps in mode `query_aware`. `distil`
    weighs, in the other steps, how far attention is from what the group's teachers together think of its
    documents, on a range from 0 to `scale`.
    """

    batch: int = 6
    learning_rate: float = 3e-4
    layer: int = 12
    rank: int = 16
    documents: int = 3
    aware: float = 0.1
    document_tokens: int = 160
    signal: Literal["words", "answer"] = "words"
    distil: float = 1.0
    scale: float = 10.0


class AttentionReader(Student):
    """A decoder with LoRA, whose attention to documents can be trained. It computes in `dtype`."""

    def __init__(
        self, model: Any, tokenizer: Any, recipe: Recipe, options: InContextOptions, dtype: torch.dtype
    ) -> None:
        super().__init__(options.seed)
        self.options, self.recipe, self.net = options, recipe, model
        self.layout = Layout(tokenizer, recipe)
        self._decoder = Decoder(model, options.layer, str(model.device))
        without = tuple(f"layers.{options.layer}.{part}" for part in NEVER)
        put_lora(model, options.rank, options.seed, dtype, without)

    def forward(self, groups: list[Group]) -> Tensor:
        """The loss of a step, a scalar: each question's positive against the documents of all."""
        chance = self.generator()
        alone = float(torch.rand((), generator=chance)) < self.options.aware
        sampled = [sample(group, self.options.documents, chance) for group in groups]
        if alone:
            return torch.stack([self._alone(group) for group in sampled]).mean()
        return self._together(sampled)

    def shares(self, query: str, documents: Sequence[tuple[str, str]]) -> dict[Mode, Tensor]:
        """S in modes `keys` and `cached`: the share of attention that falls on each document, float32
        [documents], summing to one.
        """
        before = self._instruction(None)
        read = self._read(documents, before)
        return {mode: self._asked([query], read, before, mode)[0] for mode in TOGETHER}

    def _together(self, groups: list[Group]) -> Tensor:
        """Modes `keys` and `cached` of the same documents, read once."""
        documents = [document for group in groups for document in group.documents]
        unique = list(dict.fromkeys(documents))
        before = self._instruction(None)
        read = self._read(unique, before)
        targets, banned = _targets(groups, unique)
        taught = [row for row, group in enumerate(groups) if group.scores and self.options.distil]
        told = _told([groups[row] for row in taught], unique, self.options.scale)
        losses = []
        for mode in TOGETHER:
            shares = self._asked([group.query for group in groups], read, before, mode)
            device = shares.device
            logits = (shares / TEMPERATURE).masked_fill(banned.to(device), float("-inf"))
            losses.append(cross_entropy(logits, targets.to(device)))
            if taught:
                losses[-1] = losses[-1] + self.options.distil * distil(told.to(device), logits[taught])
        return torch.stack(losses).mean()

    def _alone(self, group: Group) -> Tensor:
        """Mode `query_aware` of one question."""
        before = self._instruction(group.query)
        read = self._read(group.documents, before)
        (shares,) = self._asked([group.query], read, before, "query_aware")
        target = torch.tensor([group.relevant.index(True)], device=shares.device)
        return cross_entropy(shares[None] / TEMPERATURE, target)

    def _read(self, documents: Sequence[tuple[str, str]], before: States) -> list[Read]:
        tokens = [cut.ids for cut in self.layout.documents(documents)]
        return self._decoder.read(tokens, before, self.options.layer)

    def _instruction(self, query: str | None) -> States:
        return self._decoder.read([self.layout.instruction(query).ids], None, self.options.layer)[0].states()

    def _asked(self, queries: Sequence[str], read: Sequence[Read], before: States, mode: Mode) -> Tensor:
        """Shares float32 [questions, documents]."""
        questions = [self.layout.question(query, mode, self.recipe.read) for query in queries]
        blocks = [question.block for question in questions]
        found = self._queries(blocks, read, before, mode)
        rows = [
            each[:, question.rows(question.block)] for each, question in zip(found, questions, strict=True)
        ]
        keys = torch.cat([each.keys[self.options.layer] for each in read], dim=1).float()
        owners = torch.repeat_interleave(torch.tensor([each.keys[0].shape[1] for each in read]))
        return torch.stack([share(each, keys, owners.to(keys.device), len(read)) for each in rows])

    def _queries(
        self, blocks: Sequence[Block], read: Sequence[Read], before: States, mode: Mode
    ) -> Sequence[Tensor]:
        """Queries of layer l*, scaled: float32 [heads, tokens, head_dim] of each block."""
        lengths = [len(block.ids) for block in blocks]
        begin = before.tokens + self.recipe.gap
        positions = torch.cat([torch.arange(begin, begin + length) for length in lengths])
        ids = [number for block in blocks for number in block.ids]
        if mode == "keys":
            alone = Alone(lengths, before, self.options.layer)
            self._decoder.flat(ids, positions, alone)
            return alone.queries
        over = Over(lengths, before, read, self.options.layer)
        self._decoder.flat(ids, positions, over)
        return over.queries


class Over:
    """Questions one behind the other, each over the instruction, all documents and itself, to layer l*.

    What `models.in_context.attention.Asked` computes, with gradients.
    """

    def __init__(self, lengths: Sequence[int], before: States, read: Sequence[Read], last: int) -> None:
        self.queries: tuple[Tensor, ...] = ()
        self._lengths, self._before, self._read, self._last = list(lengths), before, read, last
        device = before.keys.device
        blocks = torch.repeat_interleave(torch.tensor(self._lengths, device=device))
        own = (blocks[:, None] == blocks).tril()
        documents = sum(each.keys[0].shape[1] for each in read)
        ones = own.new_ones(len(own), before.tokens + documents)
        self._seen = torch.cat([ones, own], dim=1)

    def __call__(self, layer: int, q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
        """See `models.in_context.attention.Pass`."""
        if layer == self._last:
            self.queries = tuple(each * scale for each in torch.split(q[0].float(), self._lengths, dim=1))
            raise Reached
        keys = [self._before.keys[layer], *(each.keys[layer] for each in self._read), k[0]]
        values = [self._before.values[layer], *(each.values[layer] for each in self._read), v[0]]
        return grouped(q, torch.cat(keys, 1)[None], torch.cat(values, 1)[None], self._seen, scale)


def share(queries: Tensor, keys: Tensor, owners: Tensor, documents: int) -> Tensor:
    """The share of attention on each document: float32 [documents], the mean over heads and rows.

    queries [heads, rows, d], scaled; keys [kv_heads, tokens, d]; owners int64 [tokens], whose token each is.
    The softmax is over the tokens of documents only (BlockRank, section 3.3).
    """
    heads, rows, d = queries.shape
    shared = keys.shape[0]
    logits = queries.reshape(shared, heads // shared * rows, d) @ keys.transpose(1, 2)
    mass = logits.softmax(-1).sum((0, 1)) / (heads * rows)
    return mass.new_zeros(documents).index_add(0, owners, mass)


def train(
    training: Sequence[Group],
    validation: Sequence[Group],
    out: Path,
    options: InContextOptions,
    base: str,
    cache: Path | None,
) -> Run:
    """Train an adapter of the model called `base`, and write `out` as a folder to name in `in_context_model`.

    Groups without a relevant document are left out: nothing is to be looked at there. Validation is nDCG@10
    of the reader alone over the validation groups' documents, the mean of modes `keys` and `cached`.
    """
    found = opened(base, cache)
    recipe = replace(
        found.recipe,
        layer=options.layer,
        read=BlockRank(signal=options.signal),
        document_tokens=options.document_tokens,
    )
    device = "cuda" if torch.cuda.is_available() else "cpu"
    # LoRA is merged into the weights as they are stored, so these are not rounded before.
    model, tokenizer = load_model(replace(found, recipe=recipe), device, "float32")
    reader = AttentionReader(model, tokenizer, recipe, options, getattr(torch, fast_dtype(device)))
    usable = [group for group in training if any(group.relevant) and not all(group.relevant)]
    judged = [group for group in validation if any(group.relevant)]
    log.info("%d of %d groups have a relevant document and others", len(usable), len(training))

    def measures() -> dict[str, float]:
        return measured(reader, judged)

    run = fit(reader, usable, measures, "ndcg@10", out / "checkpoints", options)
    save(reader, out, base)
    return run


def measured(reader: AttentionReader, groups: Sequence[Group]) -> dict[str, float]:
    """Mean nDCG@10 of the groups' documents by the reader alone, by mode and over both modes."""
    shares = [reader.shares(each.query, each.documents) for each in groups]
    relevant = [each.relevant for each in groups]
    found = {
        mode: ndcg(zip((each[mode].tolist() for each in shares), relevant, strict=True))
        for mode in ("keys", "cached")
    }
    return {**found, "ndcg@10": sum(found.values()) / len(found)}


def save(reader: AttentionReader, out: Path, base: str) -> None:
    """Write `in_context.json` and the adapter, in bfloat16, as PEFT would."""
    save_lora(reader.net, out / ADAPTER)
    recipe = replace(reader.recipe, model=base, adapter=ADAPTER)
    values = {name: value for name, value in recipe_to_json(recipe).items() if value is not None}
    (out / FILE).write_text(json.dumps(values, indent=2) + "\n", "utf-8")


def _targets(groups: Sequence[Group], unique: Sequence[tuple[str, str]]) -> tuple[Tensor, Tensor]:
    """The number of each question's positive, int64 [questions], and which documents it is not compared
    with, bool [questions, documents]: its other relevant ones.
    """
    places = {document: number for number, document in enumerate(unique)}
    targets = [places[group.documents[group.relevant.index(True)]] for group in groups]
    banned = torch.zeros(len(groups), len(unique), dtype=torch.bool)
    for row, group in enumerate(groups):
        for document, relevant in zip(group.documents, group.relevant, strict=True):
            banned[row, places[document]] = relevant and places[document] != targets[row]
    return torch.tensor(targets), banned


def _told(groups: Sequence[Group], unique: Sequence[tuple[str, str]], scale: float) -> Tensor:
    """What teachers think of the documents: float32 [questions, documents], -inf for other questions'."""
    places = {document: number for number, document in enumerate(unique)}
    told = torch.full((len(groups), len(unique)), float("-inf"))
    for row, group in enumerate(groups):
        columns = [places[document] for document in group.documents]
        told[row, columns] = ensemble(group.scores, sorted(group.scores), scale)
    return told
