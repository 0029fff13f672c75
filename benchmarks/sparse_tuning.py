"""The knobs of an approximate search: tried by turns on one half of the questions, reported on the other."""

from collections.abc import Mapping, Sequence
from itertools import product
from typing import Generic, NamedTuple, TypeVar

from benchmarks.rival_seismic import SeismicKnobs
from benchmarks.rivals import Engine
from benchmarks.sparse_measure import answers, interleaved
from benchmarks.sparse_truth import Truth
from benchmarks.sparse_vectors import Dataset
from indexer.segment.sparse import Plan

LEAST = 0.99  # recall that a setting must have to be compared

Knobs = TypeVar("Knobs", bound=tuple[object, ...])


def label(knobs: tuple[object, ...]) -> str:
    """The numbers among them."""
    return "/".join(f"{knob:g}" for knob in knobs if isinstance(knob, int | float))


class Tried(NamedTuple, Generic[Knobs]):
    """One setting: microseconds of processor time, and recall of either half."""

    knobs: Knobs
    cpu: float
    train: float
    held_out: float

    @property
    def label(self) -> str:
        """The knobs, as in 5/0.9."""
        return label(self.knobs)


def seismic_grid() -> list[SeismicKnobs]:
    """Few terms suffice for synthetic questions; the even weights of real ones need more, and more blocks."""
    cuts, factors = (3, 4, 5, 6, 8, 10, 14, 20), (0.7, 0.8, 0.9, 1.0, 1.1)
    return [SeismicKnobs(*knobs) for knobs in product(cuts, factors)]


def winnow_grid() -> list[Plan]:
    """The same, with dismissal by the heaviest terms of a passage."""
    cuts, factors, dismissals = (4, 5, 6, 8, 10, 14, 20), (0.7, 0.8, 0.9, 1.0), (0.0, 0.4, 0.5, 0.6, 0.7)
    return [Plan("approximate", *knobs) for knobs in product(cuts, factors, dismissals)]


def tried(
    engines: Mapping[Knobs, Engine], data: Dataset, truth: Truth, k: int, asked: int, rounds: int
) -> list[Tried[Knobs]]:
    """Every setting's cost on the training half and its recall on both; `asked` of each, cheapest first."""
    found = []
    halves = (data.train[:asked], data.held_out[:asked])
    times = interleaved({label(knobs): engine for knobs, engine in engines.items()}, halves[0], k, rounds)
    for knobs, engine in engines.items():
        train, held_out = (truth.recall(data, half, answers(engine, half, k), k) for half in halves)
        found.append(Tried(knobs, times[label(knobs)].cpu, train, held_out))
    return sorted(found, key=lambda one: one.cpu)


def fastest(settings: Sequence[Tried[Knobs]]) -> Tried[Knobs]:
    """The cheapest whose recall on the training half suffices; the best in recall if none does."""
    enough = [one for one in settings if one.train >= LEAST]
    return min(enough, key=lambda one: one.cpu) if enough else max(settings, key=lambda one: one.train)
