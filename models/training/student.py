"""A cheap model learns which windows of a document a trained cross-encoder would score highest.

Step 3 of training IDCM (Hofstätter et al., SIGIR 2021, arXiv 2105.09816): the cross-encoder is frozen and
scores all windows, and the student (`models.cross_student`) learns to rank its best n first. Gains are
n, n - 1, …, 1 for these and 0 for all others, and the loss is NDCG-Loss2 of the LambdaLoss framework (Wang et
al., CIKM 2018, section 6.2), see `ndcg_loss`.

Documents are the passages of a group one behind the other, in an order by chance that is the same each time:
so a document has many windows, and what answers is anywhere in it. Before it is trained the student estimates
nearly as `models.cross_student.Counting` does.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer
from torch import Tensor, nn
from torch.nn.functional import conv1d, normalize, softplus

from models.cross import CrossEncoder
from models.cross_folder import find, open_folder
from models.cross_passages import Ints, Scores, Windows, choose, cut
from models.cross_recipe import Recipe, read_recipe
from models.cross_student import DEVIATION, FILE, LEAST, MEANS, QUESTION, Counting
from models.tokens import copied
from models.training.fit import Options, Run, Student, fit
from models.training.groups import Group

CHECKPOINTS = Path("checkpoints") / "student"
ONE = float(np.log(np.e - 1))
"""softplus of it is 1."""


@dataclass(frozen=True, kw_only=True)
class StudentOptions(Options):
    """`width` is that of the convolution (e).

    At most `documents` are made for training and a fifth of that for validation, and each is cut off behind
    `longest` windows: it takes the cross-encoder longer to score them than the student to learn.
    """

    steps: int = 400
    learning_rate: float = 1e-3
    validate: int = 50
    width: int = 128
    documents: int = 300
    longest: int = 24


class Document(NamedTuple):
    """A question and a document in pieces: ids int64 [q] and [m], windows int64 [n, 2] of (begin, end).

    `scores` float32 [n] are what the cross-encoder says of the windows.
    """

    question: list[int]
    pieces: list[int]
    windows: Ints
    scores: Scores


class Scoring(Protocol):
    """What a teacher needs of a cross-encoder (`models.cross.CrossEncoder`)."""

    @property
    def recipe(self) -> Recipe:
        """How it reads long documents."""
        ...

    def predict(self, pairs: Sequence[tuple[str, str]]) -> Scores:
        """The logits of pairs of a question and a text, float32 [n]."""
        ...


class Teacher:
    """A cross-encoder that scores all windows of documents made of groups, each once."""

    def __init__(self, net: Scoring, whole: Tokenizer, options: StudentOptions) -> None:
        self.most = net.recipe.passages
        self._net, self._whole, self._options = net, whole, options
        self._known: dict[tuple[str, tuple[tuple[str, str], ...]], Document] = {}

    def document(self, group: Group) -> Document:
        """The group's passages as one document."""
        key = group.query, group.documents
        if key not in self._known:
            self._known[key] = self._scored(group)
        return self._known[key]

    def chooses(self, group: Group) -> bool:
        """Whether the group's document has more windows than are read anyway."""
        return len(self._windows(joined(group, self._options.seed))[1]) > self.most

    def _scored(self, group: Group) -> Document:
        text = joined(group, self._options.seed)
        asked = self._whole.encode(group.query, add_special_tokens=False)
        pieces, windows = self._windows(text)
        logits = self._net.predict(
            [(group.query, text[begin:end]) for begin, end in windows.characters.tolist()]
        )
        return Document(asked.ids, pieces[: int(windows.tokens[-1, 1])], windows.tokens, logits)

    def _windows(self, text: str) -> tuple[list[int], Windows]:
        recipe, pieces = self._net.recipe, self._whole.encode(text, add_special_tokens=False)
        offsets = np.array(pieces.offsets, np.int64).reshape(-1, 2)
        windows = cut(text, offsets, recipe.window, recipe.overlap)
        return pieces.ids, windows.take(range(min(len(windows), self._options.longest)))


def joined(group: Group, seed: int) -> str:
    """The group's passages one behind the other, in an order that hangs on the seed and on them."""
    order = sorted(group.texts, key=lambda text: sha256(f"{seed} {text}".encode()).digest())
    return "\n\n".join(order)


class WindowStudent(Student):
    """What `models.cross_student.Kernels` computes, with gradients.

    `embeddings` float [vocabulary, d] are the cross-encoder's own, and stay. Scales are kept above 0 as the
    softplus of what is trained.
    """

    def __init__(self, embeddings: Tensor, teacher: Teacher, options: StudentOptions) -> None:
        super().__init__(options.seed)
        self._embeddings, self._teacher = embeddings.detach(), teacher
        weight, bias = passed_on(embeddings, options.width, options.seed)
        self.weight, self.bias = nn.Parameter(weight), nn.Parameter(bias)
        self.scales = nn.Parameter(torch.full((len(MEANS),), ONE))
        self.kernel_weights = nn.Parameter(torch.eye(len(MEANS))[0].clone())
        self.shift = nn.Parameter(torch.zeros(1))

    def forward(self, groups: list[Group]) -> Tensor:
        """The loss of a step, a scalar: the mean over documents."""
        documents = [self._teacher.document(group) for group in groups]
        most = self._teacher.most
        return torch.stack(
            [ndcg_loss(self.estimates(each), gains(each.scores, most)) for each in documents]
        ).mean()

    def estimates(self, document: Document) -> Tensor:
        """One a window, float32 [n]."""
        asked = self._vectors(document.question)[:QUESTION]
        cosines = asked @ self._vectors(document.pieces).T
        places = torch.arange(len(document.pieces), device=cosines.device)
        windows = torch.from_numpy(document.windows).to(cosines.device)
        inside = (places[:, None] >= windows[:, 0]) & (places[:, None] < windows[:, 1])
        means = torch.tensor(MEANS, device=cosines.device)[:, None, None]
        near = torch.exp(-((cosines - means) ** 2) / (2 * DEVIATION**2))
        sums = softplus(self.scales)[:, None, None] * (near @ inside.float())
        kernels = sums.clamp_min(LEAST).log().sum(1)
        return self.kernel_weights @ kernels + self.shift

    def _vectors(self, ids: Sequence[int]) -> Tensor:
        """What the convolution makes of a text: float32 [pieces, e], unit length or zero."""
        if not ids:
            return self.weight.new_empty(0, len(self.weight))
        rows = self._embeddings[torch.tensor(ids, device=self._embeddings.device)].float()
        return normalize(conv1d(rows.T[None], self.weight, self.bias, padding=1)[0].T.relu(), dim=-1)

    def tensors(self) -> dict[str, Tensor]:
        """What `models.cross_student` reads."""
        found = {
            "convolution.weight": self.weight,
            "convolution.bias": self.bias,
            "kernel_scales": softplus(self.scales),
            "kernel_weights": self.kernel_weights,
            "bias": self.shift,
        }
        return {name: each.detach().cpu().contiguous() for name, each in found.items()}

    def measure(self, groups: Sequence[Group]) -> dict[str, float]:
        """The mean share of the net's best windows among the student's, and among those of `Counting`."""
        documents = [self._teacher.document(group) for group in groups]
        most, counting = self._teacher.most, Counting()
        own = [shared(each.scores, self.estimates(each).cpu().numpy(), most) for each in documents]
        others = [shared(each.scores, counting.estimates(*each[:3]), most) for each in documents]
        return {"found": float(np.mean(own)), "counting": float(np.mean(others))}


def passed_on(embeddings: Tensor, width: int, seed: int) -> tuple[Tensor, Tensor]:
    """A convolution that passes pieces on: weight float32 [width, d, 3] and bias [width].

    ReLU takes half of what a number says, so each direction is there twice, with both signs. Directions are
    by chance, and pieces are seen from their mean, which all have in common. ValueError for an odd width.
    """
    if width % 2 or not 0 < width // 2 <= embeddings.shape[1]:
        raise ValueError(
            f"a convolution of width {width} cannot pass on {embeddings.shape[1]} numbers in pairs"
        )
    chance = torch.Generator().manual_seed(seed)
    rows, _ = torch.linalg.qr(torch.randn(embeddings.shape[1], width // 2, generator=chance))
    both = torch.cat([rows.T, -rows.T]).to(embeddings.device)
    weight = torch.zeros(width, embeddings.shape[1], 3, device=embeddings.device)
    weight[:, :, 1] = both
    return weight, -(both @ embeddings.detach().float().mean(0))


def gains(scores: Scores, most: int) -> Tensor:
    """`most`, most - 1, …, 1 for the best scores, 0 for the others: float32 [n]. Of equal ones the first."""
    found = torch.zeros(len(scores))
    best = np.argsort(-scores, kind="stable")[:most]
    found[torch.from_numpy(best)] = torch.arange(most, 0, -1, dtype=torch.float32)[: len(best)]
    return found


def ndcg_loss(scores: Tensor, gains: Tensor) -> Tensor:
    """NDCG-Loss2 (LambdaLoss, Wang et al., CIKM 2018), a scalar of scores and gains float [n].

    With documents in the order of their scores, ranks r from 1, D(r) = log2(1 + r) and G = gains divided by
    the DCG of the best order:

        delta_ij = |1 / D(|r_i - r_j|) - 1 / D(|r_i - r_j| + 1)|
        loss = sum over gain_i > gain_j of delta_ij * |G_i - G_j| * log2(1 + exp(s_j - s_i))
    """
    order = scores.detach().argsort(descending=True, stable=True)
    ranked, gained = scores[order], gains.to(scores.device)[order]
    ranks = torch.arange(len(scores), device=scores.device)
    discounts = (ranks + 2.0).log2()
    best = (gained.sort(descending=True).values / discounts).sum()
    apart = (ranks[:, None] - ranks).abs()
    deltas = 1 / (apart.clamp_min(1) + 1.0).log2() - 1 / (apart + 2.0).log2()
    weights = deltas * (gained[:, None] - gained).clamp_min(0.0) / best.clamp_min(1e-9)
    surprise = softplus(ranked - ranked[:, None]) / float(np.log(2))
    return (weights * surprise).sum()


def shared(scores: Scores, estimates: Scores, most: int) -> float:
    """The share of the `most` best by `scores` [n] that is among the best by `estimates` [n]."""
    wanted, found = choose(scores, most), choose(estimates, most)
    return len(np.intersect1d(wanted, found)) / len(wanted)


def train(
    training: Sequence[Group],
    validation: Sequence[Group],
    out: Path,
    options: StudentOptions,
    base: str,
    cache: Path | None,
) -> Run:
    """Train the student of the cross-encoder called `base`, and write it into `out`.

    It belongs beside the cross-encoder's own files, so `out` may be its folder. Groups whose passages make no
    more windows than the cross-encoder reads are left out; ValueError if that leaves none.
    """
    embeddings, teacher = opened(base, options, cache)
    some = [each for each in training if teacher.chooses(each)][: options.documents]
    others = [each for each in validation if teacher.chooses(each)][: max(1, options.documents // 5)]
    if not some or not others:
        raise ValueError(
            f"{len(some)} groups for training and {len(others)} for validation have passages for more than "
            f"{teacher.most} windows: mine more documents a group"
        )
    student = WindowStudent(embeddings, teacher, options)
    run = fit(student, some, lambda: student.measure(others), "found", out / CHECKPOINTS, options)
    save(student, out)
    return run


def opened(base: str, options: StudentOptions, cache: Path | None) -> tuple[Tensor, Teacher]:
    """The input embeddings of the cross-encoder called `base`, and what it teaches."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    found = find(base)
    path, kind = found.prepared(device, "auto", cache)
    net = open_folder(found, path, device, kind)
    recipe = read_recipe(found.weights.path, net.max_tokens)
    reader = CrossEncoder(found, net, recipe, Counting())
    whole = copied(net.tokenizer.backend_tokenizer)
    return net.net.get_input_embeddings().weight, Teacher(reader, whole, options)


def save(student: WindowStudent, out: Path) -> None:
    """Write `student.safetensors`."""
    out.mkdir(parents=True, exist_ok=True)
    save_file(student.tensors(), out / FILE)
