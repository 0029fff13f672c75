"""Passages learn to be found by questions that no net reads: inference-free learned sparse retrieval.

A question is its distinct word pieces, each with a weight of a table (IDF); only the passage's side is a net
(SPLADE). Distilled are several teachers at once, each brought to one scale (Geng et al. 2024, arXiv
2411.04403):

    s(q, d) = sum over pieces j of q of idf_j * w_dj
    loss = KL(softmax(T) || softmax(s)) + contrast * InfoNCE(s) + lambda(t) * FLOPS(w)

FLOPS is taken of the raw weights w while idf multiplies the matching side, as the released trainer does; so a
frequent word pays more for what it adds to a score. Documents of the other questions of a step are compared
too: teachers that never saw them would rank them last.
"""

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import AutoModelForMaskedLM, AutoTokenizer

from models.load import resolve
from models.precision import fast_dtype, pretrained
from models.sparse_heads import Projection, activate, by_stretch, voters
from models.sparse_nets import split
from models.sparse_recipe import FILE as RECIPE
from models.training.fit import Options, Run, Student, fit
from models.training.groups import Group, sample
from models.training.losses import distil, ensemble, flops, info_nce, warmed
from models.training.measures import ndcg

KEPT = ("config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt")
MODEL = "model.safetensors"
TABLE = "idf.safetensors"
NOTHING = float("-inf")
BLOCK = 16
"""Texts whose logits are computed together; with more, stretches of the vocabulary become too narrow."""


@dataclass(frozen=True, kw_only=True)
class SparseOptions(Options):
    """`documents` of each group are read in a step: a relevant one if there is any, others by chance.

    `teachers` are names of scores in the groups, `scale` what their mean is multiplied by, `temperature` what
    the student's scores are divided by. `contrast` is the weight of InfoNCE, for questions that have a
    relevant document. `regulariser` is lambda, reached after the share `ramp` of the steps. A passage is cut
    to `tokens`. The table of questions' weights is idf times exp(`table_rate` * c), of which c is trained: it
    needs larger steps than a net, and at 0 it stays idf.
    """

    batch: int = 16
    learning_rate: float = 2e-4
    documents: int = 5
    teachers: tuple[str, ...] = ("bm25", "dense", "sparse")
    scale: float = 30.0
    temperature: float = 2.0
    contrast: float = 0.1
    regulariser: float = 0.0005
    ramp: float = 0.33
    tokens: int = 160
    table_rate: float = 20.0


class Largest(torch.autograd.Function):
    """`max_i (h_i . E_j + c_j)` for every j, with gradients only where a maximum is above zero.

    A text has some hundred such entries of 30,000, and gradients of the product as it is written would fill
    [texts, positions, vocabulary]. Where the maximum was is found again, for these entries only.
    """

    @staticmethod
    def forward(ctx: Any, states: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        """[texts, vocabulary] of `states` [texts, positions, hidden], all of which count.

        `weight` is [vocabulary, hidden], `bias` [vocabulary]; the product is in bfloat16 where that is fast.
        """
        kind = torch.bfloat16 if fast_dtype(str(states.device)) == "bfloat16" else torch.float32
        projection = Projection(weight.to(kind), None)
        largest = torch.cat(
            [
                by_stretch(some, projection, lambda logits: logits.amax(1))
                for some in torch.split(states.to(kind), BLOCK)
            ]
        )
        largest = largest.float() + bias
        ctx.save_for_backward(states, weight, largest > 0)
        return largest

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Gradients of states, weight and bias."""
        states, weight, active = ctx.saved_tensors
        text, term = (gradients[0] * active).nonzero(as_tuple=True)
        value = gradients[0][text, term][:, None]
        terms = torch.split(term, torch.bincount(text, minlength=len(states)).tolist())
        place = torch.cat([(own @ weight[some].T).argmax(0) for own, some in zip(states, terms, strict=True)])
        of_states = torch.zeros_like(states).index_put_((text, place), value * weight[term], accumulate=True)
        of_weight = torch.zeros_like(weight).index_add_(0, term, value * states[text, place])
        of_bias = weight.new_zeros(len(weight)).index_add_(0, term, value[:, 0])
        return of_states, of_weight, of_bias


class InferenceFree(Student):
    """A masked-language model for passages and a table for questions, both to be trained."""

    def __init__(self, net: Any, tokenizer: Any, idf: NDArray[np.float32], options: SparseOptions) -> None:
        super().__init__(options.seed)
        self.body, projection = split(net)
        self.weight, self.bias = projection.weight, projection.bias
        self._idf = torch.from_numpy(idf.copy()).to(self.weight.device)
        self.change = nn.Parameter(torch.zeros_like(self._idf), requires_grad=options.table_rate > 0)
        self.options, self._tokenizer = options, tokenizer
        special = [each for each in tokenizer.all_special_ids if each < len(idf)]
        self._special = torch.tensor(special, device=self.weight.device)

    def forward(self, groups: list[Group]) -> Tensor:
        """The loss of a step, a scalar."""
        options, chance = self.options, self.generator()
        sampled = [sample(group, options.documents, chance) for group in groups]
        weights = self.passages([text for group in sampled for text in group.texts])
        scores = self.questions([group.query for group in sampled]) @ weights.T / options.temperature
        told, targets, known = _told(sampled, options)
        scores = scores.masked_fill(told.isneginf(), NOTHING)
        loss = distil(told, scores)
        if bool(known.any()) and options.contrast:
            loss = loss + options.contrast * info_nce(scores[known], targets[known])
        over = round(options.ramp * options.steps)
        penalty = flops(weights.view(len(sampled), -1, weights.shape[1]))
        return loss + warmed(options.regulariser, self.step, over) * penalty

    def passages(self, texts: Sequence[str]) -> Tensor:
        """Weights float32 [texts, vocabulary]."""
        batch = self._tokenizer(
            list(texts), truncation=True, max_length=self.options.tokens, padding=True, return_tensors="pt"
        )
        batch = batch.to(self.weight.device)
        states = self.body(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
        votes = batch["attention_mask"].bool() & ~torch.isin(batch["input_ids"], self._special)
        largest = Largest.apply(voters(states, votes), self.weight, self.bias)  # type: ignore[no-untyped-call]
        weights = activate(largest, "log1p")
        return weights.index_fill(1, self._special, 0.0)

    def table(self) -> Tensor:
        """Weights of questions' pieces, float32 [vocabulary]."""
        return self._idf * (self.options.table_rate * self.change).exp()

    def questions(self, texts: Sequence[str]) -> Tensor:
        """Weights float32 [texts, vocabulary]: that of the table, for each piece once."""
        table = self.table()
        found = torch.zeros(len(texts), len(table), device=table.device)
        for row, ids in enumerate(
            self._tokenizer(list(texts), truncation=True, max_length=self.options.tokens).input_ids
        ):
            found[row, torch.tensor(ids)] = 1.0
        return found.index_fill(1, self._special, 0.0) * table


def _told(groups: Sequence[Group], options: SparseOptions) -> tuple[Tensor, Tensor, Tensor]:
    """Teachers' scores [questions, all documents], the positives' numbers, and which questions have one.

    Documents of other questions are at zero, where each teacher puts the last of a question's own; the same
    document twice counts once.
    """
    documents = [document for group in groups for document in group.documents]
    told = torch.zeros(len(groups), len(documents))
    begin = 0
    targets = []
    for row, group in enumerate(groups):
        end = begin + len(group.documents)
        again = [place for place, each in enumerate(documents) if each in group.documents]
        told[row, again] = NOTHING
        told[row, begin:end] = ensemble(group.scores, options.teachers, options.scale)
        targets.append(begin)
        begin = end
    return told, torch.tensor(targets), torch.tensor([any(group.relevant) for group in groups])


def piece_idf(texts: Sequence[str], tokenizer: Any, vocabulary: int) -> NDArray[np.float32]:
    """`ln(1 + (N - df + 0.5) / (df + 0.5))` of every vocabulary entry over N texts: float32 [vocabulary].

    Pieces that no text has are the rarest.
    """
    counts = np.zeros(vocabulary, np.int64)
    for ids in tokenizer(list(texts), add_special_tokens=False).input_ids:
        counts[np.unique(np.array(ids, np.int64))] += 1
    return np.log1p((len(texts) - counts + 0.5) / (counts + 0.5)).astype(np.float32)


def train(
    training: Sequence[Group],
    validation: Sequence[Group],
    out: Path,
    options: SparseOptions,
    base: str,
    cache: Path | None,
) -> Run:
    """Train the passage side of the sparse encoder called `base`, and write `out` as a folder like it.

    The table begins as the idf of word pieces in the training groups' passages. Groups with fewer than
    `options.documents` documents are left out.
    """
    path = resolve(base).path
    device = "cuda" if torch.cuda.is_available() else "cpu"
    net = pretrained(AutoModelForMaskedLM, path, device, torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(path, local_files_only=True)
    usable = [group for group in training if len(group.documents) >= options.documents]
    if not usable:
        raise ValueError(f"no group has {options.documents} documents, so there is nothing to train on")
    texts = list(dict.fromkeys(text for group in usable for text in group.texts))
    idf = piece_idf(texts, tokenizer, net.config.vocab_size)
    student = InferenceFree(net, tokenizer, idf, options).to(device)
    judged = [group for group in validation if any(group.relevant)]
    run = fit(student, usable, lambda: measured(student, judged), "ndcg@10", out / "checkpoints", options)
    save(student, out, path)
    return run


def measured(student: InferenceFree, groups: Sequence[Group]) -> dict[str, float]:
    """Mean nDCG@10 of the groups' documents, and how many entries a passage has on average."""
    ranked, entries = [], []
    for group in groups:
        weights = student.passages(group.texts)
        (scores,) = student.questions([group.query]) @ weights.T
        ranked.append((scores.tolist(), group.relevant))
        entries.append(float((weights > 0).sum(1).float().mean()))
    return {"ndcg@10": ndcg(ranked), "entries": float(np.mean(entries))}


def save(student: InferenceFree, out: Path, base: Path) -> None:
    """Write weights and table, matrices in bfloat16, and the configuration and tokeniser of `base`."""
    out.mkdir(parents=True, exist_ok=True)
    for name in KEPT:
        if (base / name).is_file():
            shutil.copyfile(base / name, out / name)
    named = {name.removeprefix("body."): each for name, each in student.state_dict().items()}
    tensors = {name: each for name, each in named.items() if name not in ("weight", "bias", "change")}
    rounded = {name: each.bfloat16() if each.ndim > 1 else each for name, each in tensors.items()}
    save_file(
        {name: each.contiguous().clone() for name, each in rounded.items()}, out / MODEL, {"format": "pt"}
    )
    save_file({"idf": student.table().detach().contiguous()}, out / TABLE)
    (out / RECIPE).write_text(
        json.dumps({"kind": "mlm", "pooling": "max", "activation": "log1p"}) + "\n", "utf-8"
    )
