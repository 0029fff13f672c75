"""Seismic (Bruch et al. 2024, arXiv 2404.18812) as pyseismic-lsr has it, in Rust: the search to beat.

`SeismicIndex` takes tokens and gives names, both strings; `SeismicIndexRaw` takes and gives numbers, which
saves the lookups, but is built from a file only. Each is asked one question at a time by `search`.
"""

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from benchmarks.sparse_vectors import Dataset

NAME = "of.index.seismic"  # of the file in an index's folder; the library adds what follows the first dot

Rows = NDArray[np.int64]


class SeismicBuild(NamedTuple):
    """What decides an index; the other settings are the library's own."""

    postings: int  # kept per term, on average
    centroids: float  # share of a list
    energy: float  # share of a summary's mass
    most: float  # longest list, in multiples of `postings`

    def __str__(self) -> str:
        """As `parse` reads it."""
        return ",".join(f"{value:g}" for value in self)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Of what str() gave."""
        postings, *others = text.split(",")
        return cls(int(postings), *map(float, others))


class SeismicKnobs(NamedTuple):
    """What a search decides: how many of the question's terms, and how far below the k-th score blocks go."""

    cut: int
    heap_factor: float


def seismic_builds(passages: int) -> list[SeismicBuild]:
    """From lists that suffice for synthetic vectors to such as the library's defaults give, where quick.

    Real encodings need the longer ones. At 100,000 passages the defaults (3500, 0.1, 0.4, 1.5) cut nothing
    that the last of these does not, so they are not tried as well.
    """
    short = max(50, passages // 1000)
    builds = [SeismicBuild(short * times, 0.2, 0.4, 6) for times in (1, 2)]
    longer = [SeismicBuild(short * 4, 0.2, 0.4, 6), SeismicBuild(short * 8, 0.1, 0.4, 6)]
    return builds + longer if passages <= 200_000 else builds


def build_seismic(data: Dataset, build: SeismicBuild, folder: Path) -> None:
    """Write a `SeismicIndex` into an empty folder, on one thread."""
    from seismic import SeismicDataset, SeismicIndex

    dataset = SeismicDataset(data.vocabulary)
    names = [str(row) for row in range(len(data.passages))]
    terms = data.passages.terms.astype(np.int64)
    dataset.add_documents_by_id(names, terms, data.passages.weights, data.passages.offsets)
    index = SeismicIndex.build_from_dataset(dataset, **_settings(build), num_threads=1)
    index.save(str(folder / NAME.partition(".")[0]))


def build_seismic_raw(data: Dataset, build: SeismicBuild, folder: Path) -> None:
    """Write a `SeismicIndexRaw` likewise; set RAYON_NUM_THREADS for one thread."""
    from seismic import SeismicIndexRaw

    source = folder / "vectors"
    with source.open("wb") as file:
        file.write(struct.pack("<I", len(data.passages)))
        for terms, weights in data.passages:
            file.write(struct.pack("<I", len(terms)) + terms.tobytes() + weights.tobytes())
    SeismicIndexRaw.build(str(source), **_settings(build)).save(str(folder / NAME))
    source.unlink()


def _settings(build: SeismicBuild) -> dict[str, float]:
    return {
        "n_postings": build.postings,
        "centroid_fraction": build.centroids,
        "summary_energy": build.energy,
        "max_fraction": build.most,
    }


class SeismicIndexOpened:
    """A `SeismicIndex`, read into memory whole, and questions with their terms as strings."""

    def __init__(self, data: Dataset, folder: Path) -> None:
        from seismic import SeismicIndex, get_seismic_string

        self.index = SeismicIndex.load(str(folder / NAME))
        self.kind = get_seismic_string()
        self.terms = [np.array([str(term) for term in terms], dtype=self.kind) for terms, _ in data.questions]
        self.weights = [weights for _, weights in data.questions]


@dataclass(frozen=True)
class Seismic:
    """`SeismicIndex.search` with one pair of knobs."""

    opened: SeismicIndexOpened
    knobs: SeismicKnobs

    def search(self, question: int, k: int) -> Any:
        """Tuples of question, score and passage."""
        asked, (cut, heap_factor) = self.opened, self.knobs
        terms, weights = asked.terms[question], asked.weights[question]
        return asked.index.search("", terms, weights, k=k, query_cut=cut, heap_factor=heap_factor)

    def rows(self, answer: Any) -> Rows:
        """Passages are named by their rows."""
        return np.array([int(name) for _, _, name in answer], np.int64)


class SeismicRaw:
    """`SeismicIndexRaw.search` with one pair of knobs."""

    def __init__(self, data: Dataset, folder: Path, knobs: SeismicKnobs) -> None:
        from seismic import SeismicIndexRaw

        self.index = SeismicIndexRaw.load(str(folder / NAME))
        self.questions = list(data.questions)
        self.knobs = knobs

    def search(self, question: int, k: int) -> Any:
        """Pairs of score and passage."""
        terms, weights = self.questions[question]
        return self.index.search(terms, weights, k, self.knobs.cut, self.knobs.heap_factor, 0, True)

    def rows(self, answer: Any) -> Rows:
        """The second of each pair."""
        return np.array([row for _, row in answer], np.int64)


@dataclass(frozen=True)
class SeismicBatch:
    """`SeismicIndex.batch_search` of so many questions a call, on one thread, from the one asked for on."""

    opened: SeismicIndexOpened
    knobs: SeismicKnobs
    size: int

    def search(self, question: int, k: int) -> Any:
        """Answers of all of them."""
        asked, (cut, heap_factor) = self.opened, self.knobs
        begin = min(question, max(0, len(asked.terms) - self.size))
        terms, weights = (each[begin : begin + self.size] for each in (asked.terms, asked.weights))
        names = np.array([str(begin + number) for number in range(len(terms))], asked.kind)
        return asked.index.batch_search(
            names, terms, weights, k=k, query_cut=cut, heap_factor=heap_factor, num_threads=1
        )

    def rows(self, answer: Any) -> Rows:
        """Of the first question."""
        return np.array([int(name) for _, _, name in answer[0]], np.int64)
