"""A small net learns which passages answer no question: what static pruning leaves out of an index.

Chang et al., "Neural Passage Quality Estimation for Static Pruning", SIGIR 2024: trained as a reranker is,
but without the question. Passages that are relevant to some question are good. Bad are those that are
relevant to none and that no teacher counts among the best tenth of any question's documents: what may be
merely unjudged is neither. A step takes one good and one bad passage of each of its groups, so that neither
topic nor collection tells them apart; the loss is cross-entropy over two classes, "true" and "false".

What is held out here are passages, since those of one question's group are in others' too. To validation
belong passages that its questions alone find relevant, and of those that no question does what only its
groups have, and half of what both have, by a hash.
"""

import logging
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from models.in_context.gguf import quiet
from models.load import Weights, resolve
from models.quality import Classifier, InformationToNoise, Quality, keep
from models.training.fit import Options, Run, Student, fit
from models.training.groups import Group, held_out

log = logging.getLogger(__name__)

LABELS = {0: "false", 1: "true"}
KEPT = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt")
MODEL = "model.safetensors"
NEW = ("classifier.", "bert.pooler.")
"""Weights that a language model lacks, which begin at random."""

PRUNED = 0.3
"""The share of passages that goes when validation asks how many relevant ones stay."""


@dataclass(frozen=True, kw_only=True)
class QualityOptions(Options):
    """`low` is the share of a question's documents that may be bad if every teacher has them there; with 1 a
    passage is bad that is relevant to no question. `words` trains the embeddings too. `max_tokens` are those
    of a passage in training.
    """

    batch: int = 16
    learning_rate: float = 3e-4
    low: float = 0.9
    words: bool = False
    max_tokens: int = 256


@dataclass(frozen=True)
class Sides:
    """Passages by text: whether one is good, of training; and of validation by collection, where all that is
    not relevant to a question counts as not good.
    """

    training: Mapping[str, bool]
    validation: Mapping[str, Mapping[str, bool]]


class QualityStudent(Student):
    """A classifier of two classes. `judge` is the production scorer over the net that is trained."""

    def __init__(self, net: Any, tokenizer: Any, good: Mapping[str, bool], options: QualityOptions) -> None:
        super().__init__(options.seed)
        self.net, self.options, self._good, self._tokenizer = net, options, good, tokenizer
        net.get_input_embeddings().weight.requires_grad_(options.words)
        self.judge = Classifier(Weights("a scorer in training", Path(), ""), net, tokenizer)

    def forward(self, groups: list[Group]) -> Tensor:
        """The loss of a step, a scalar. ValueError for a group without a good or without a bad passage."""
        chance = self.generator()
        pairs = [self._pair(group, chance) for group in groups]
        batch = self._tokenizer(
            [text for pair in pairs for text in pair],
            truncation=True,
            max_length=self.options.max_tokens,
            padding=True,
            return_tensors="pt",
        ).to(self.net.device)
        targets = torch.tensor([1, 0] * len(pairs), device=self.net.device)
        return cross_entropy(self.net(**batch).logits, targets)

    def usable(self, group: Group) -> bool:
        """Whether a group has both a good and a bad passage."""
        return {self._good.get(text) for text in group.texts} >= {True, False}

    def _pair(self, group: Group, chance: torch.Generator) -> tuple[str, str]:
        """A good and a bad passage of a group."""
        if not self.usable(group):
            raise ValueError(f"the group of {group.query!r} has no good and bad passage")
        sides = [[text for text in group.texts if self._good.get(text) is side] for side in (True, False)]
        good, bad = (side[int(torch.randint(len(side), (), generator=chance))] for side in sides)
        return good, bad


def train(
    training: Sequence[Group],
    validation: Sequence[Group],
    out: Path,
    options: QualityOptions,
    base: str,
    cache: Path | None,
) -> Run:
    """Train the body of the net called `base` as a scorer of passages, and write `out` as its folder.

    Validation is the area under the ROC curve, `auc`; see `measured`. ValueError if no group has a good and a
    bad passage, or validation does not.
    """
    path = resolve(base).path
    torch.manual_seed(options.seed)
    net, tokenizer = open_base(path), AutoTokenizer.from_pretrained(path, local_files_only=True)
    found = sides(training, validation, options)
    if not any(len(set(of.values())) > 1 for of in found.validation.values()):
        raise ValueError("validation has no relevant passage beside others: hold more questions out")
    net.to("cuda" if torch.cuda.is_available() else "cpu")
    student = QualityStudent(net, tokenizer, found.training, options)
    usable = [group for group in training if student.usable(group)]
    log.info("%d of %d groups have a good and a bad passage", len(usable), len(training))
    if not usable:
        raise ValueError("no group has a good and a bad passage: every passage answers some question")
    itn = {f"itn_{name}": value for name, value in measured(InformationToNoise(), found.validation).items()}

    def measures() -> dict[str, float]:
        return {**measured(student.judge, found.validation), **itn}

    run = fit(student, usable, measures, "auc", out / "checkpoints", options)
    save(net, out, path)
    return run


def sides(training: Sequence[Group], validation: Sequence[Group], options: QualityOptions) -> Sides:
    """Which passages are good and bad, and which of them are held out."""
    learnt, steering = _relevant(training), _relevant(validation)
    wanted = _wanted([*training, *validation], options.low)
    here = {text for group in training for text in group.texts}
    pool: dict[str, dict[str, bool]] = {}
    for group in validation:
        for text in group.texts:
            if text in learnt or (
                text not in steering and text in here and not held_out(text, 0.5, options.seed)
            ):
                continue
            pool.setdefault(group.source, {})[text] = text in steering
    held = {text for of in pool.values() for text in of}
    bad = dict.fromkeys(here - learnt - wanted - held, False)
    return Sides({**bad, **dict.fromkeys(learnt, True)}, pool)


def measured(judge: Quality, passages: Mapping[str, Mapping[str, bool]]) -> dict[str, float]:
    """What a scorer is worth on passages by collection: means over those with good passages and others.

    `auc` is the area under the ROC curve: how often a good passage is above another one, equal ones half.
    `kept` is the share of good passages that stay when the worst 30 % of the collection's go.
    """
    found: list[tuple[float, float]] = []
    for of in passages.values():
        texts, good = sorted(of), np.array([of[text] for text in sorted(of)])
        if good.any() and not good.all():
            scores = judge.scores(texts)
            stays = keep(scores, PRUNED, texts)
            found.append((auc(scores, good), float(stays[good].mean())))
    means = np.mean(found, axis=0) if found else np.zeros(2)
    return {"auc": float(means[0]), "kept": float(means[1])}


def auc(scores: NDArray[np.float32], good: NDArray[np.bool_]) -> float:
    """The share of pairs of a good and another passage in which the good one is above; equal ones are half.

    ValueError without one of each.
    """
    others = np.sort(scores[~good])
    if not good.any() or not len(others):
        raise ValueError("there is nothing to tell apart: passages are all good or all not")
    below = np.searchsorted(others, scores[good], "left")
    not_above = np.searchsorted(others, scores[good], "right")
    return float((below + not_above).mean() / (2 * len(others)))


def open_base(path: Path) -> Any:
    """The net of a folder with a classifier of two classes, of which only what is above the body is random.

    ValueError if other weights are missing.
    """
    with quiet():  # it would report the classifier that is missing, on purpose
        net, report = AutoModelForSequenceClassification.from_pretrained(
            path,
            num_labels=2,
            id2label=LABELS,
            label2id={label: number for number, label in LABELS.items()},
            use_safetensors=True,
            local_files_only=True,
            dtype=torch.float32,
            output_loading_info=True,
        )
    if missing := sorted(key for key in report["missing_keys"] if not key.startswith(NEW)):
        raise ValueError(f"{path} lacks weights of {type(net).__name__}: {', '.join(missing)}")
    return net


def save(net: Any, out: Path, base: Path) -> None:
    """Write what `models.quality` reads: the net, matrices in bfloat16, with the tokeniser of `base`."""
    out.mkdir(parents=True, exist_ok=True)
    for name in KEPT:
        if (base / name).is_file():
            shutil.copyfile(base / name, out / name)
    net.config.save_pretrained(out)
    rounded = {name: each.bfloat16() if each.ndim > 1 else each for name, each in net.state_dict().items()}
    save_file({name: each.contiguous() for name, each in rounded.items()}, out / MODEL, {"format": "pt"})


def _relevant(groups: Iterable[Group]) -> set[str]:
    """Passages that a question finds relevant."""
    return {
        text
        for group in groups
        for text, relevant in zip(group.texts, group.relevant, strict=True)
        if relevant
    }


def _wanted(groups: Iterable[Group], low: float) -> set[str]:
    """Passages that a teacher puts above the lowest share `low` of some question's documents."""
    found: set[str] = set()
    for group in groups:
        for scores in group.scores.values():
            below = np.searchsorted(np.sort(scores), scores, "left")  # equal ones are all as low
            high = below + 1 > low * len(scores)
            found.update(text for text, best in zip(group.texts, high, strict=True) if best)
    return found
