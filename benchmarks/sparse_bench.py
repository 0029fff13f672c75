"""One data set under measurement: its truths, its indices on disk, and the engines opened from them.

Indices and the settings chosen for pyseismic are kept beside the data, since choosing takes minutes; ours is
kept under a fingerprint of our code. The anchor, to which all ratios refer, is pyseismic's `SeismicIndex`
with the build and knobs that answer fastest among those that find 99 % on the training half.
"""

import json
import shutil
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from benchmarks import sparse_masks
from benchmarks.rival_seismic import (
    Seismic,
    SeismicBuild,
    SeismicIndexOpened,
    SeismicKnobs,
    SeismicRaw,
    seismic_builds,
)
from benchmarks.sparse_data import IDF
from benchmarks.sparse_masks import Mask
from benchmarks.sparse_measure import Questions
from benchmarks.sparse_process import Figures, in_own_process
from benchmarks.sparse_truth import Truth, truths
from benchmarks.sparse_tuning import Tried, fastest, seismic_grid, tried
from benchmarks.sparse_vectors import Dataset
from benchmarks.sparse_winnow import Winnow, fingerprint, open_winnow
from indexer.segment.seismic import SEISMIC
from indexer.segment.sparse import Plan, Sparse

CHOOSING = 2  # rounds
ASKED = {10: 1000, 100: 500, 1000: 200}  # questions of a half, by k


class Anchor(NamedTuple):
    """The settings of pyseismic to compare with."""

    build: SeismicBuild
    knobs: SeismicKnobs


@dataclass
class Bench:
    """See above; `again` builds and chooses everything anew."""

    data: Dataset
    cache: Path
    rounds: int
    again: bool = False
    _figures: dict[str, Figures] = field(default_factory=dict)
    _opened: dict[tuple[str, int], Sparse] = field(default_factory=dict)

    @cached_property
    def live(self) -> Mask:
        """Passages without a tombstone."""
        return sparse_masks.live(len(self.data.passages))

    @cached_property
    def truth(self) -> Truth:
        """Over all passages: pyseismic cannot delete."""
        return truths(self.data, {"all": None}, self.cache)["all"]

    @cached_property
    def live_truth(self) -> Truth:
        """Over the passages that live."""
        return truths(self.data, {"live": self.live}, self.cache)["live"]

    def asked(self, k: int) -> int:
        """How many questions of a half, fewer for larger k."""
        return min(ASKED.get(k, 200), len(self.data.held_out))

    def held_out(self, k: int) -> Questions:
        """Questions to report by."""
        return self.data.held_out[: self.asked(k)]

    def anchor(self, k: int) -> Anchor:
        """Kept from an earlier run, or chosen now."""
        path = self.cache / f"{self.data.name}.anchor-{k}.json"
        if self.again or not path.is_file():
            build, best = self._choose(k)
            path.write_text(json.dumps({"build": str(build), "knobs": best.knobs, "train": best.train}))
        kept = json.loads(path.read_text())
        return Anchor(SeismicBuild.parse(kept["build"]), SeismicKnobs(*kept["knobs"]))

    def _choose(self, k: int) -> tuple[SeismicBuild, Tried[SeismicKnobs]]:
        builds = seismic_builds(len(self.data.passages))
        settings = [(build, one) for build in builds for one in self.seismic_tried(build, k)]
        best = fastest([one for _, one in settings])
        return next(build for build, one in settings if one is best), best

    def seismic_tried(self, build: SeismicBuild, k: int) -> list[Tried[SeismicKnobs]]:
        """Every pair of knobs with one build."""
        opened = self.seismic(build)
        engines = {knobs: Seismic(opened, knobs) for knobs in seismic_grid()}
        return tried(engines, self.data, self.truth, k, self.asked(k), CHOOSING)

    def seismic(self, build: SeismicBuild) -> SeismicIndexOpened:
        """Pyseismic's index, opened."""
        return SeismicIndexOpened(self.data, self.index(f"seismic:{build}"))

    def seismic_raw(self, anchor: Anchor) -> SeismicRaw:
        """The same index of numbers in place of strings."""
        return SeismicRaw(self.data, self.index(f"seismic-raw:{anchor.build}"), anchor.knobs)

    @cached_property
    def has_lists(self) -> bool:
        """Whether our index has lists for approximate search, which it keeps if they prove themselves."""
        return (self.index("winnow") / SEISMIC).exists()

    def search(self, plan: Plan, allowed: Mask | None = None, engine: str = "winnow") -> Winnow:
        """Our index with its questions; opened once for each mask, since it remembers the last it saw."""
        key = engine, id(allowed)
        if key not in self._opened:
            self._opened[key] = open_winnow(self.index(engine))
        return Winnow(self._opened[key], self.data, plan, allowed)

    def index(self, engine: str) -> Path:
        """The folder of an engine's index, built if need be."""
        self.figures(engine)
        return self._folder(engine)

    def figures(self, engine: str) -> Figures:
        """What building an engine's index took, now or when it was built."""
        folder = self._folder(engine)
        record = folder.with_suffix(".json")
        if not record.is_file() or (self.again and engine not in self._figures):
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            figures = in_own_process("build", engine, self.cache / f"{self.data.name}.npz", folder)
            record.write_text(json.dumps(figures))
        self._figures[engine] = json.loads(record.read_text())
        return self._figures[engine]

    def _folder(self, engine: str) -> Path:
        code = f"-{fingerprint()}" if engine.startswith("winnow") else ""
        name = engine.replace(":", "-").replace(".", "_") + code
        return self.cache / "indices" / f"{self.data.name.removesuffix(IDF)}-{name}"
