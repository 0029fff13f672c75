"""What must be measured in a process of its own: time and memory of a build, the cost of opening.

    python -m benchmarks.sparse_process build ENGINE DATA.npz FOLDER
    python -m benchmarks.sparse_process open ENGINE DATA.npz FOLDER

ENGINE is `winnow`, `winnow-lists`, or `seismic:` or `seismic-raw:` followed by a build's settings. Prints a
JSON object. A build's memory is counted above what the process held with the data loaded. Opening is timed
with nothing of the files in the page cache; what it reads from the disk includes what the kernel reads ahead.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from benchmarks.rival_seismic import (
    Seismic,
    SeismicBuild,
    SeismicIndexOpened,
    SeismicKnobs,
    SeismicRaw,
    build_seismic,
    build_seismic_raw,
)
from benchmarks.rivals import Engine
from benchmarks.sparse_vectors import Dataset, read
from benchmarks.sparse_winnow import Winnow, build_winnow, build_winnow_lists, open_winnow
from indexer.kernels import warm
from indexer.segment.sparse import Plan

Figures = dict[str, float]
WARMING = 2000  # passages of a first build that is not measured: it loads compiled code


def in_own_process(action: str, engine: str, data: Path, folder: Path) -> Figures:
    """Figures of the command above; raises CalledProcessError after its own complaint."""
    command = [sys.executable, "-m", "benchmarks.sparse_process", action, engine, str(data), str(folder)]
    environment = os.environ | {"RAYON_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True, text=True)
    figures: Figures = json.loads(done.stdout.splitlines()[-1])
    return figures


def measure_build(engine: str, data: Dataset, folder: Path) -> Figures:
    """Build once, on one thread, into an empty folder."""
    warm()
    with TemporaryDirectory() as directory:
        few = data.passages.take(np.arange(min(WARMING, len(data.passages))))
        _build(engine, Dataset("few", few, data.questions, data.vocabulary), Path(directory))
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far
    before, cpu, wall = _memory("VmRSS"), time.process_time(), time.perf_counter()
    _build(engine, data, folder)
    return {
        "cpu_s": time.process_time() - cpu,
        "wall_s": time.perf_counter() - wall,
        "peak_bytes": _memory("VmHWM") - before,
        "bytes": sum(file.stat().st_size for file in folder.iterdir()),
    }


def measure_open(engine: str, data: Dataset, folder: Path) -> Figures:
    """Open from the disk, then ask the first questions, the first of them on cold pages."""
    warm()
    for file in folder.iterdir():
        _forget_pages(file)
    before, wall = _read_bytes(), time.perf_counter()
    opened = _open(engine, data, folder)
    wall, touched = time.perf_counter() - wall, _read_bytes() - before
    questions = []
    for question in data.held_out[:100]:
        began = time.perf_counter()
        opened.search(int(question), 10)
        questions.append(time.perf_counter() - began)
    return {
        "open_ms": wall * 1e3,
        "read_bytes": touched,
        "first_question_ms": questions[0] * 1e3,
        "hundred_questions_ms": sum(questions) * 1e3,
        "read_bytes_after_hundred": _read_bytes() - before,
    }


def _build(engine: str, data: Dataset, folder: Path) -> None:
    name, _, settings = engine.partition(":")
    if settings:
        build = {"seismic": build_seismic, "seismic-raw": build_seismic_raw}[name]
        build(data, SeismicBuild.parse(settings), folder)
    else:
        {"winnow": build_winnow, "winnow-lists": build_winnow_lists}[name](data, folder)


def _open(engine: str, data: Dataset, folder: Path) -> Engine:
    name = engine.partition(":")[0]
    knobs = SeismicKnobs(5, 0.9)
    if name.startswith("winnow"):
        return Winnow(open_winnow(folder), data, Plan())
    return (
        SeismicRaw(data, folder, knobs)
        if name == "seismic-raw"
        else Seismic(SeismicIndexOpened(data, folder), knobs)
    )


def _memory(field: str) -> int:
    """Bytes that the kernel counts for this process under VmRSS (now) or VmHWM (most so far)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(f"{field}:"))


def _read_bytes() -> int:
    """Bytes this process has had fetched from storage."""
    lines = Path("/proc/self/io").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("read_bytes:"))


def _forget_pages(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("action", choices=["build", "open"])
    parser.add_argument("engine")
    parser.add_argument("data", type=Path)
    parser.add_argument("folder", type=Path)
    options = parser.parse_args()
    measure = measure_build if options.action == "build" else measure_open
    print(json.dumps(measure(options.engine, read(options.data), options.folder)))


if __name__ == "__main__":
    main()
