"""A sentence encoder learns to read question and passage together: a head on its first state, LoRA below it.

The student's logits s of a question's documents are to say what several teachers think of them together (T,
`models.training.losses.ensemble`), and which of them answers, where that is known:

    loss = distil * KL(softmax(T) || softmax(s)) + contrast * InfoNCE(s) + keep * CE(tokens)

the last only for a net that also says which sentences to keep (Provence: `models.training.keep`). Pairs are
tokenised and read by the cross-encoder that serves, so what is trained is what is served.

The net scores what a first stage has found, and its score counts half beside that stage's. So weights are
chosen by the nDCG of both together: a mistake where the first stage knows better costs little, and what the
net only repeats gains nothing.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors.torch import save_file
from torch import Tensor

from models.cross import BUDGET, CrossEncoder
from models.cross_folder import Opened, find, with_head
from models.cross_heads import FILE as HEAD
from models.cross_recipe import FILE, Recipe
from models.cross_student import Counting
from models.late import LateEncoder
from models.load import is_path
from models.packing import pack
from models.precision import DType, fast_dtype
from models.tokens import copied
from models.training.fit import Options, Run, Student, fit
from models.training.groups import Group
from models.training.keep import Agreement, Keeping, citing, keep_loss
from models.training.lora import put_lora, save_lora
from models.training.losses import distil, ensemble, info_nce
from models.training.measures import ndcg

log = logging.getLogger(__name__)

ADAPTER = "adapter"
MEASURE = "fused_ndcg@10"

PADDING = 256
"""Tokens of a batch that may be padding: gradients make a small forward dear."""

SPREAD = 0.02
"""Standard deviation of the classifier's numbers before it is trained."""


@dataclass(frozen=True, kw_only=True)
class CrossOptions(Options):
    """`rank` is that of LoRA. A pair is cut to `tokens`, and to what the encoder reads.

    `documents` of each group are read in a step: a relevant one if there is any, one of the others by chance,
    and else such as the teachers like. `teachers` are names of scores in the groups, and `scale` what their
    mean is multiplied by. `distil`, `contrast` and `keep` are the weights of the losses; with `keep` above 0
    the net learns to keep sentences too, cited by the late-interaction encoder called `cites`, by default the
    base itself. `measured` is how many groups of the validation are measured at most.
    """

    learning_rate: float = 1e-3
    rank: int = 32
    tokens: int = 256
    documents: int = 6
    teachers: tuple[str, ...] = ("bm25", "dense", "sparse")
    scale: float = 10.0
    distil: float = 1.0
    contrast: float = 1.0
    keep: float = 0.0
    cites: str | None = None
    measured: int = 100


class Read(NamedTuple):
    """What the net says of a pair: its logit, a scalar, and of a net that keeps sentences [tokens, 2]."""

    logit: Tensor
    keep: Tensor | None


class CrossStudent(Student):
    """A cross-encoder with LoRA. `keeping` says which sentences to keep; None for a net without that head.

    Nothing is ever dropped out: the net is trained as it will run.
    """

    def __init__(
        self, opened: Opened, reader: CrossEncoder, options: CrossOptions, keeping: Keeping | None
    ) -> None:
        super().__init__(options.seed)
        self.options, self.net = options, opened.net
        self._reader, self._keeping = reader, keeping

    def train(self, mode: bool = True) -> "CrossStudent":
        """See `torch.nn.Module.train`."""
        super().train(mode)
        self.net.eval()
        return self

    def forward(self, groups: list[Group]) -> Tensor:
        """The loss of a step, a scalar."""
        options, chance = self.options, self.generator()
        sampled = [drawn(group, options.documents, options.teachers, chance) for group in groups]
        read = iter(self.read([(group.query, text) for group in sampled for text in group.texts]))
        by_group = [[next(read) for _ in group.documents] for group in sampled]
        scores = [torch.stack([each.logit for each in found]) for found in by_group]
        loss = torch.stack([self._ranked(*each) for each in zip(sampled, scores, strict=True)]).mean()
        return loss if self._keeping is None else loss + options.keep * self._kept(sampled, by_group)

    def read(self, pairs: Sequence[tuple[str, str]]) -> list[Read]:
        """What the net says of pairs, in their order, with gradients if those are asked for."""
        items = self._reader.tokenize(pairs)
        found: dict[int, Read] = {}
        for places in pack([len(item) for item in items], BUDGET, padding=PADDING):
            said = self.net(**self._reader.inputs([items[place] for place in places]))
            for row, place in enumerate(places):
                keep = None if said.keep is None else said.keep[row, : len(items[place])]
                found[place] = Read(said.logits[row, 0], keep)
        return [found[place] for place in range(len(items))]

    def _ranked(self, group: Group, scores: Tensor) -> Tensor:
        """What is wrong about the order of a question's documents, whose relevant one is the first."""
        options, loss = self.options, scores.sum() * 0.0
        if options.distil and group.scores:
            told = ensemble(group.scores, options.teachers, options.scale).to(scores.device)
            loss = loss + options.distil * distil(told[None], scores[None])
        if options.contrast and any(group.relevant):
            target = torch.zeros(1, dtype=torch.int64, device=scores.device)
            loss = loss + options.contrast * info_nce(scores[None], target)
        return loss

    def _kept(self, groups: Sequence[Group], read: Sequence[Sequence[Read]]) -> Tensor:
        """What is wrong about their sentences, of the questions that have a relevant document."""
        assert self._keeping is not None
        logits, labels = [], []
        for group, said in zip(groups, read, strict=True):
            for pair, each in zip(
                self._keeping.pairs(group) if any(group.relevant) else [], said, strict=False
            ):
                assert each.keep is not None
                logits.append(each.keep[torch.from_numpy(pair.places)])
                labels.append(pair.labels())
        if not logits:
            return read[0][0].logit * 0.0
        found = torch.cat(logits)
        return keep_loss(found, torch.cat(labels).to(found.device))

    def measure(self, groups: Sequence[Group]) -> dict[str, float]:
        """Mean nDCG@10 of judged groups' documents, by the net alone and half and half with the teachers.

        Of a net that keeps sentences also how well it does that (see `models.training.keep.Agreement`).
        """
        alone, fused, agreement = [], [], Agreement()
        for group in groups:
            read = self.read([(group.query, text) for text in group.texts])
            scores = [float(each.logit) for each in read]
            alone.append((scores, group.relevant))
            fused.append((both(scores, group, self.options.teachers), group.relevant))
            if self._keeping is not None:
                self._agree(group, read, agreement)
        found = {MEASURE: ndcg(fused), "ndcg@10": ndcg(alone)}
        return found if self._keeping is None else {**found, **agreement.measures()}

    def _agree(self, group: Group, read: Sequence[Read], agreement: Agreement) -> None:
        assert self._keeping is not None
        for pair, each, relevant in zip(self._keeping.pairs(group), read, group.relevant, strict=True):
            assert each.keep is not None
            p = each.keep[torch.from_numpy(pair.places)].softmax(-1)[:, 1].float().cpu().numpy()
            agreement.add(pair, p, relevant)


def drawn(group: Group, documents: int, teachers: Sequence[str], generator: torch.Generator) -> Group:
    """A relevant document if there is any, and others that are not, `documents` in all if there are so many.

    The relevant one is the first. Of the others one is any, the rest are drawn without replacement, that at
    rank r of the teachers by a weight of 1 / r.
    """
    positives = [row for row, relevant in enumerate(group.relevant) if relevant]
    others = [row for row, relevant in enumerate(group.relevant) if not relevant]
    if group.scores:
        together = ensemble(group.scores, teachers, 1.0)
        others.sort(key=lambda row: -float(together[row]))
    kept = [positives[int(torch.randint(len(positives), (), generator=generator))]] if positives else []
    wanted = documents - len(kept)
    if len(others) > wanted:
        others = [others[place] for place in _some(len(others), wanted, generator)]
    return group.take(kept + others)


def _some(ranks: int, wanted: int, generator: torch.Generator) -> list[int]:
    """`wanted` of so many ranks, best first: one by chance, the others by a weight of 1 / rank."""
    left = torch.ones(ranks)
    found = [int(torch.randint(ranks, (), generator=generator))]
    left[found] = 0.0
    if wanted > 1:
        weights = left / torch.arange(1, ranks + 1)
        found += torch.multinomial(weights, wanted - 1, generator=generator).tolist()
    return sorted(found)


def both(scores: Sequence[float], group: Group, teachers: Sequence[str]) -> list[float]:
    """The student's scores of a group's documents and those of the teachers together, half and half.

    Both are brought to 0..1 over the group, as where they are served.
    """
    own = ensemble({"own": scores}, ("own",), 1.0)
    if not group.scores:
        return own.tolist()
    first = ensemble(group.scores, teachers, 1.0)
    return (own + ensemble({"first": first.tolist()}, ("first",), 1.0)).tolist()


def train(
    training: Sequence[Group],
    validation: Sequence[Group],
    out: Path,
    options: CrossOptions,
    base: str,
    cache: Path | None,
) -> Run:
    """Train a cross-encoder on the encoder called `base`, and write `out` as a folder to name in
    `cross_encoder`.

    Of groups without a relevant document only teachers are heard, of groups without teachers only which
    document is relevant; what tells nothing is left out. ValueError for a base that has such a head already,
    for teachers that are not in the groups, and without a judged group to validate on.
    """
    usable = [group for group in training if _tells(group, options)]
    judged = [group for group in validation if any(group.relevant)][: options.measured]
    if not judged:
        raise ValueError("no group for validation has a relevant document, so no weights could be chosen")
    log.info("%d of %d groups can be learnt from", len(usable), len(training))
    student = started(options, base, cache)
    run = fit(student, usable, lambda: student.measure(judged), MEASURE, out / "checkpoints", options)
    save(student, out, base)
    return run


def _tells(group: Group, options: CrossOptions) -> bool:
    """Whether there is something to be learnt of a group. ValueError if it lacks one of the teachers."""
    if group.scores and (missing := set(options.teachers) - set(group.scores)):
        raise ValueError(
            f"groups of {group.source} have scores of {', '.join(sorted(group.scores))}, and none of "
            f"{', '.join(sorted(missing))}: name the teachers that they have"
        )
    taught = bool(options.distil and group.scores) and len(group.documents) > 1
    return taught or (any(group.relevant) and not all(group.relevant))


def started(
    options: CrossOptions, base: str, cache: Path | None = None, dtype: DType = "auto"
) -> CrossStudent:
    """The encoder called `base` with LoRA and an untrained head."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    found = find(base)
    if (found.weights.path / HEAD).is_file():
        raise ValueError(f"{base} has a head already: name the encoder that it was trained on")
    path, _ = found.prepared(device, "float32", cache)
    opened = with_head(found, path, device, torch.float32, lambda width: begun(width, options))
    kind = fast_dtype(device) if dtype == "auto" else dtype
    put_lora(opened.net.body, options.rank, options.seed, getattr(torch, kind))
    if device == "cpu":
        # Gradients through torch's own kernel of attention cost twice those of plain products there.
        opened.net.body.set_attn_implementation("eager")
    for name, weight in opened.net.named_parameters():
        weight.requires_grad_(weight.requires_grad or not name.startswith("body."))
    opened = replace(opened, max_tokens=min(opened.max_tokens, options.tokens))
    reader = CrossEncoder(found, opened, Recipe(), Counting())
    return CrossStudent(opened, reader, options, _keeping(options, base, opened, cache))


def begun(width: int, options: CrossOptions) -> dict[str, Tensor]:
    """The tensors of an untrained head: the state passes the pooler as it is, and says little yet."""
    chance = torch.Generator().manual_seed(options.seed)
    head = {
        "pooler.weight": torch.eye(width),
        "pooler.bias": torch.zeros(width),
        "classifier.weight": SPREAD * torch.randn(1, width, generator=chance),
        "classifier.bias": torch.zeros(1),
    }
    if not options.keep:
        return head
    return {**head, "keep.weight": torch.zeros(2, width), "keep.bias": torch.zeros(2)}


def _keeping(options: CrossOptions, base: str, opened: Opened, cache: Path | None) -> Keeping | None:
    if not options.keep:
        return None
    cut = copied(opened.tokenizer.backend_tokenizer)
    cut.enable_truncation(opened.max_tokens, direction=opened.tokenizer.truncation_side)
    return Keeping(cut, citing(LateEncoder.load(options.cites or base, cache=cache)))


def save(student: CrossStudent, out: Path, base: str) -> None:
    """Write `cross.json`, the head in float32 and the adapter in bfloat16.

    Nothing is said of windows: a net that was trained on passages reads long documents by the best of them.
    """
    out.mkdir(parents=True, exist_ok=True)
    name = str(Path(base).expanduser().resolve()) if is_path(base) else base
    recipe = Recipe(model=name, adapter=ADAPTER)
    (out / FILE).write_text(recipe.model_dump_json(exclude_unset=True) + "\n", "utf-8")
    head = {
        key: each.contiguous()
        for key, each in student.net.state_dict().items()
        if not key.startswith("body.")
    }
    save_file({key: each.cpu() for key, each in head.items()}, out / HEAD)
    save_lora(student.net.body, out / ADAPTER)
