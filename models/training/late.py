"""Token vectors learn to rank: a head on the states of an encoder, and LoRA below it.

A passage's score is the mean over the question's vectors of the best cosine among the passage's (MaxSim:
Khattab & Zaharia 2020, arXiv 2004.12832). With T what several teachers think of a question's documents
together (`models.training.losses.ensemble`) and s these scores, of which few differ by more than a tenth,

    loss = KL(softmax(T) || softmax(s / tau)) + pairs * PairDistill(T, s / tau) + contrast * InfoNCE(s / tau).

The first two compare a question's own documents; InfoNCE has a question's relevant document stand against
those of all questions of a step. Heads are the projections of Clavié et al. 2025 (arXiv 2510.12327), begun
such that untrained they rank nearly as the states themselves (`models.training.head_start`).
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from models.late import LateEncoder
from models.late_folder import find, open_folder
from models.late_gate import Gate, save_gate
from models.late_heads import save_head, unit
from models.late_recipe import FILE, Activation, HeadSpec, Recipe, Shape
from models.load import is_path
from models.precision import DType, fast_dtype
from models.training.fit import Options, Run, Student, fit
from models.training.groups import Group, sample
from models.training.head_start import begun
from models.training.late_net import TokenNet
from models.training.late_scores import maxsim
from models.training.lora import put_lora, save_lora
from models.training.losses import distil, ensemble, info_nce
from models.training.measures import ndcg
from models.training.merging import Merging
from models.training.pair_distill import near_pairs, pair_distill, preferred

log = logging.getLogger(__name__)

ADAPTER = "adapter"
NOTHING = float("-inf")
SAMPLED = 512
"""Documents whose states say in which directions a head begins."""

TOGETHER = 16
"""Groups that are read together when they are measured."""


@dataclass(frozen=True, kw_only=True)
class LateOptions(Options):
    """`head`, `activation` and `residual` are the form of the projection to `dim` numbers, inside `widening`
    times as wide as the states; `rank` is that of LoRA, and at 0 the encoder stays as it is.

    `documents` of each group are read in a step: a relevant one if there is any, others by chance.
    `teachers` are names of scores in the groups, `scale` what their mean is multiplied by and `temperature`
    what the student's scores are divided by. `pairs` is the weight of PairDistill for documents at most
    `window` ranks apart, `contrast` that of InfoNCE. `merging` and `pool` are `late_pooling` and `late_pool`
    of the collections that the net is for: what these average is averaged in training. `gate` is the weight
    of the penalty on the gates of whole words; above 0 there are such.
    """

    learning_rate: float = 3e-4
    head: Shape = "deep"
    activation: Activation = "identity"
    residual: bool = True
    widening: int = 2
    dim: int = 128
    rank: int = 16
    documents: int = 8
    teachers: tuple[str, ...] = ("bm25", "dense", "sparse")
    scale: float = 30.0
    temperature: float = 0.02
    pairs: float = 3.0
    window: int = 2
    contrast: float = 1.0
    merging: Merging | None = None
    pool: int = 2
    gate: float = 0.0

    def __post_init__(self) -> None:
        if self.gate and self.merging != "words":
            raise ValueError("gates are for whole words: they need merging = 'words'")

    def spec(self, hidden: int) -> HeadSpec:
        """The form of a head for states of `hidden` numbers."""
        if self.head == "linear":
            return HeadSpec(kind="linear", dim=self.dim, residual=self.residual)
        return HeadSpec(
            kind=self.head,
            dim=self.dim,
            inner=self.widening * hidden,
            activation=self.activation,
            residual=self.residual,
        )


class LateStudent(Student):
    """A net of token vectors, which gives its loss."""

    def __init__(self, net: TokenNet, options: LateOptions) -> None:
        super().__init__(options.seed)
        self.net, self.options = net, options

    def forward(self, groups: list[Group]) -> Tensor:
        """The loss of a step, a scalar."""
        options, chance = self.options, self.generator()
        sampled = [sample(group, options.documents, chance) for group in groups]
        texts = list(dict.fromkeys(text for group in sampled for text in group.texts))
        passages, gates = self.net.passages(texts)
        questions = self.net.vectors([group.query for group in groups], "query")
        scores = maxsim(questions, passages) / options.temperature
        places = {text: number for number, text in enumerate(texts)}
        loss = self._taught(sampled, scores, places) + self._contrasted(groups, sampled, scores, places)
        return loss if gates is None else loss + options.gate * gates.mean()

    def _taught(self, groups: Sequence[Group], scores: Tensor, places: dict[str, int]) -> Tensor:
        """Distillation of the teachers over each question's own documents."""
        options, losses = self.options, []
        for row, group in enumerate(groups):
            if not group.scores:
                continue
            own = scores[row, [places[text] for text in group.texts]]
            told = ensemble(group.scores, options.teachers, options.scale).to(own.device)
            pairs = near_pairs(told, options.window)
            loss = distil(told[None], own[None])
            losses.append(loss + options.pairs * pair_distill(own, pairs, preferred(told, pairs)))
        return torch.stack(losses).mean() if losses else scores.sum() * 0.0

    def _contrasted(
        self, groups: Sequence[Group], sampled: Sequence[Group], scores: Tensor, places: dict[str, int]
    ) -> Tensor:
        """InfoNCE of the questions that have a relevant document, against the documents of all questions."""
        rows = [row for row, group in enumerate(sampled) if any(group.relevant)]
        if not rows or not self.options.contrast:
            return scores.sum() * 0.0
        targets = [places[sampled[row].texts[sampled[row].relevant.index(True)]] for row in rows]
        banned = torch.zeros(len(rows), scores.shape[1], dtype=torch.bool)
        for number, row in enumerate(rows):
            texts = zip(groups[row].texts, groups[row].relevant, strict=True)
            banned[number, [places[text] for text, right in texts if right and text in places]] = True
            banned[number, targets[number]] = False
        kept = scores[rows].masked_fill(banned.to(scores.device), NOTHING)
        return self.options.contrast * info_nce(kept, torch.tensor(targets, device=scores.device))


def train(
    training: Sequence[Group],
    validation: Sequence[Group],
    out: Path,
    options: LateOptions,
    base: str,
    cache: Path | None,
) -> Run:
    """Train a head on the encoder called `base`, and write `out` as a folder to name in `late_encoder`.

    Of groups without a relevant document only teachers are heard, of groups without teachers only which
    documents are relevant; those with neither are left out. Validation is nDCG@10 of the student alone over
    the validation groups' documents. ValueError for a base that has a head, for teachers that are not in the
    groups, and without a judged group to validate on.
    """
    usable, judged = _usable(training, options), [group for group in validation if any(group.relevant)]
    if not judged:
        raise ValueError("no group for validation has a relevant document, so no weights could be chosen")
    log.info("%d of %d groups can be learnt from", len(usable), len(training))
    student = started(usable, options, base, cache)
    folder = out / "checkpoints"
    run = fit(student, usable, lambda: measured(student, judged), "ndcg@10", folder, options)
    save(student, out, base)
    return run


def started(
    groups: Sequence[Group],
    options: LateOptions,
    base: str,
    cache: Path | None = None,
    dtype: DType = "auto",
) -> LateStudent:
    """The encoder called `base` with an untrained head, made for the passages of some of the groups."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    found = find(base)
    # LoRA is merged into the weights as they are stored, so these are not rounded before.
    path, kind = found.prepared(device, "float32" if options.rank else dtype, cache)
    opened = open_folder(found, path, device, kind)
    computing = getattr(torch, fast_dtype(device) if dtype == "auto" else dtype)
    if opened.head is not unit or (found.weights.path / FILE).is_file():
        raise ValueError(f"{base} has a head or a recipe: name the encoder that it is made of")
    reader = LateEncoder(found, opened)
    head = begun(options.spec(reader.dim), _states(groups, reader, options.seed), options.seed)
    opened.body.requires_grad_(False)
    if options.rank:
        opened.body.set_attn_implementation("eager")  # on CPUs its gradients take half the time
        put_lora(opened.body, options.rank, options.seed, computing)
    gate = Gate(options.dim) if options.gate else None
    net = TokenNet(opened, reader, head, gate, options.merging, options.pool)
    return LateStudent(net, options).to(device)


def measured(student: LateStudent, groups: Sequence[Group]) -> dict[str, float]:
    """Mean nDCG@10 of the groups' documents, and the mean number of vectors that are kept of one."""
    ranked, vectors = [], []
    for begin in range(0, len(groups), TOGETHER):
        some = groups[begin : begin + TOGETHER]
        texts = list(dict.fromkeys(text for group in some for text in group.texts))
        found, _ = student.net.passages(texts)
        passages = dict(zip(texts, found, strict=True))
        questions = student.net.vectors([group.query for group in some], "query")
        for group, question in zip(some, questions, strict=True):
            (scores,) = maxsim([question], [passages[text] for text in group.texts])
            ranked.append((scores.tolist(), group.relevant))
        vectors += [int((each != 0).any(1).sum()) for each in found]
    return {"ndcg@10": ndcg(ranked), "vectors": sum(vectors) / max(len(vectors), 1)}


def save(student: LateStudent, out: Path, base: str) -> None:
    """Write `late.json`, the head and the gate in float32, and LoRA in bfloat16, as PEFT would."""
    out.mkdir(parents=True, exist_ok=True)
    net = student.net
    recipe = Recipe(
        model=str(Path(base).expanduser().resolve()) if is_path(base) else base,
        adapter=ADAPTER if student.options.rank else None,
        prompts={kind: layout.prompt for kind, layout in net.opened.layouts.items() if layout.prompt},
        gate=net.gate is not None,
    )
    (out / FILE).write_text(recipe.model_dump_json(exclude_defaults=True), "utf-8")
    save_head(out, net.head)
    if net.gate is not None:
        save_gate(out, net.gate)
    if student.options.rank:
        save_lora(net.opened.body, out / ADAPTER)


def _states(groups: Sequence[Group], reader: LateEncoder, seed: int) -> Tensor:
    """States of some groups' first documents, of unit length: float32 [tokens, hidden]."""
    chance = torch.Generator().manual_seed(seed)
    chosen = torch.randperm(len(groups), generator=chance)[:SAMPLED].tolist()
    return torch.from_numpy(np.concatenate(reader.encode([groups[number].texts[0] for number in chosen])))


def _usable(groups: Sequence[Group], options: LateOptions) -> list[Group]:
    """Groups that say something. ValueError without any, and for some that lack one of the teachers."""
    for group in groups:
        if group.scores and (missing := set(options.teachers) - set(group.scores)):
            raise ValueError(
                f"groups of {group.source} have scores of {', '.join(sorted(group.scores))}, and none of "
                f"{', '.join(sorted(missing))}: name the teachers that they have"
            )
    usable = [each for each in groups if any(each.relevant) or (each.scores and len(each.documents) > 1)]
    if not usable:
        raise ValueError("no group has a relevant document, or several with teachers' scores")
    return usable
