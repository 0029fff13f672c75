"""Which heads of a language model to read, by what all of them did with judged questions, and what that is
worth on others.

What a head gives to a document is the same whether it is read alone or with others, so any choice can be
measured on a survey without asking the net again.
"""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from models.in_context.read_out import Heads
from models.in_context.survey import best_heads, best_layer, on_relevant
from service.evaluation import Answer, Qrels, per_query, randomisation_test
from service.stages.normalise import minmax

Mode = Literal["cached", "keys"]
MODES: tuple[Mode, ...] = ("cached", "keys")
"""In the order of `InContextNet.survey`."""

WEIGHTS = (0.1, 0.2, 0.35)
"""Shares of the heads' scores in a fused one; the rest is the pipeline's, both min-max normalised."""

ALONE = 1.0
MEASURE = "nDCG@10"


@dataclass(frozen=True, eq=False)
class Surveyed:
    """A judged question, the n candidates that a pipeline found, and what every head gave to them.

    ids [n], in an order that says nothing; ranks int64 [n] and scores float32 [n] are the pipeline's;
    relevant bool [n]; attention float32 [2, layers, heads, n] as of `InContextNet.survey`.
    """

    query: str
    ids: Sequence[str]
    ranks: NDArray[np.int64]
    scores: NDArray[np.float32]
    relevant: NDArray[np.bool_]
    attention: NDArray[np.float32]


@dataclass(frozen=True)
class Choice:
    """Heads, and the layer up to which the net runs."""

    layer: int
    read: Heads

    def scores(self, attention: NDArray[np.float32], mode: Mode) -> NDArray[np.float32]:
        """What the heads give to n documents together, in mode `keys` those of the layer: float32 [n]."""
        read = self.read.at(self.layer) if mode == "keys" else self.read
        of_mode = attention[MODES.index(mode)]
        found: NDArray[np.float32] = sum(
            (weight * of_mode[layer, head] for layer, head, weight in read.heads),
            np.zeros(attention.shape[-1], np.float32),
        )
        return found


class Measured(NamedTuple):
    """Mean nDCG@10 of a ranking by the heads' scores with such a weight.

    `difference` is to the pipeline alone, `p` says how likely chance makes one as large (two-sided).
    """

    mode: Mode
    weight: float
    value: float
    difference: float
    p: float


def halves(surveyed: Sequence[Surveyed], seed: int) -> tuple[list[Surveyed], list[Surveyed]]:
    """Two parts at random, of which the first is the larger by one if they cannot be of a size."""
    mixed = list(surveyed)
    random.Random(seed).shuffle(mixed)  # noqa: S311 - a sample, not a secret
    middle = (len(mixed) + 1) // 2
    return mixed[:middle], mixed[middle:]


def mean_on_relevant(surveyed: Sequence[Surveyed]) -> NDArray[np.float32]:
    """How much of each head's attention lies on relevant documents: float32 [2, layers, heads]."""
    scores = [[on_relevant(mode, each.relevant) for mode in each.attention] for each in surveyed]
    return np.asarray(np.mean(scores, axis=0), np.float32)


def choose(scores: NDArray[np.float32], number: int, layer: int | None = None) -> Choice:
    """The best heads by `mean_on_relevant`, and their layer l* unless it is given.

    Layer and its best head are those of mode `keys`, which reads this layer alone and so cannot do without;
    the other heads are the best of mode `cached`.
    """
    cached, keys = scores
    last = best_layer(keys, number) if layer is None else layer
    wanted = cached.copy()
    wanted[last, int(keys[last].argmax())] = np.inf
    return Choice(last, best_heads(wanted, last, number))


def measure(
    surveyed: Sequence[Surveyed], choice: Choice, qrels: Qrels, seed: int
) -> tuple[float, list[Measured]]:
    """Mean nDCG@10 of the pipeline as it ranked, and of the heads alone and fused with it in both modes."""
    judged = {each.query: qrels[each.query] for each in surveyed}
    first = _per_query(judged, {each.query: _ranked(each, -each.ranks) for each in surveyed})
    found = []
    for mode in MODES:
        for weight in (ALONE, *WEIGHTS):
            ranked = {each.query: _ranked(each, _fused(each, choice, mode, weight)) for each in surveyed}
            values = _per_query(judged, ranked)
            p = randomisation_test(first, values, seed=seed)
            mean = float(values.mean())
            found.append(Measured(mode, weight, mean, mean - float(first.mean()), p))
    return float(first.mean()), found


def verdict(mode: Mode, measured: Sequence[Measured]) -> str:
    """One sentence on whether fusing pays in a mode; the best of n weights may be chance above p 0.05 / n."""
    fused = [each for each in measured if each.mode == mode and each.weight != ALONE]
    best = max(fused, key=_value)
    if best.difference <= 0:
        return f"{mode}: at none of these weights do the heads raise {MEASURE}; do not rerank by them so."
    chance = f"; the best of {len(fused)} may be so by chance" if best.p * len(fused) > 0.05 else ""
    return f"{mode}: most at a weight of {best.weight}, {best.difference:+.3f} (p {best.p:.3f}){chance}."


def _value(measured: Measured) -> float:
    return measured.value


def _fused(surveyed: Surveyed, choice: Choice, mode: Mode, weight: float) -> NDArray[np.float64]:
    new = minmax(choice.scores(surveyed.attention, mode))
    return weight * new + (1 - weight) * minmax(surveyed.scores)


def _ranked(surveyed: Surveyed, scores: NDArray[np.float64] | NDArray[np.int64]) -> Answer:
    order = np.argsort(-scores, kind="stable").tolist()
    return Answer([surveyed.ids[place] for place in order], 0.0)


def _per_query(qrels: Qrels, answers: Mapping[str, Answer]) -> NDArray[np.float64]:
    return per_query(qrels, answers)[MEASURE]
