"""Timing of engines side by side: by turns in rounds, one question a call.

A round takes the questions in chunks and gives each chunk to every engine in turn, so that all meet the same
load. Before a chunk an engine answers a few of the chunk before it, so that it has its own data in the
processor's caches, as it would in service, whoever was there before. A chunk counts with the fastest of its
rounds. Ratios are of processor time, which a busy machine disturbs least.
"""

import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from benchmarks.rivals import Engine, Rows

CHUNK = 50
BEFORE = 15  # questions of the chunk before, not timed

Questions = NDArray[np.int64]


@dataclass(frozen=True)
class Timing:
    """Microseconds a question; processor time and wall time are means, the others of wall time."""

    cpu: float
    wall: float
    median: float
    p95: float


@dataclass(frozen=True)
class Progress:
    """What another Python thread did while questions were asked, and how many were answered a second."""

    share: float  # of what it does when nothing else runs
    stall_ms: float  # its longest pause
    answered: float


def answers(engine: Engine, questions: Questions, k: int) -> list[Rows]:
    """Rows of each question's answer."""
    return [engine.rows(engine.search(int(question), k)) for question in questions]


def interleaved(
    engines: Mapping[str, Engine], questions: Questions, k: int, rounds: int
) -> dict[str, Timing]:
    """Time every engine on every question."""
    chunks = [questions[begin : begin + CHUNK].tolist() for begin in range(0, len(questions), CHUNK)]
    cpu = {name: np.full(len(chunks), np.inf) for name in engines}
    wall = {name: np.full(len(questions), np.inf) for name in engines}
    for _ in range(rounds):
        for number, chunk in enumerate(chunks):
            for name, engine in engines.items():
                for question in chunks[number - 1][:BEFORE]:
                    engine.search(question, k)
                spent, each = _chunk(engine, chunk, k)
                cpu[name][number] = min(cpu[name][number], spent)
                part = wall[name][number * CHUNK : number * CHUNK + len(chunk)]
                np.minimum(part, each, out=part)
    return {name: _timing(cpu[name].sum() / len(questions), wall[name]) for name in engines}


def _chunk(engine: Engine, chunk: Sequence[int], k: int) -> tuple[float, NDArray[np.float64]]:
    """Processor time of all, wall time of each, in microseconds."""
    began, times = time.process_time_ns(), [time.perf_counter_ns()]
    for question in chunk:
        engine.search(question, k)
        times.append(time.perf_counter_ns())
    return (time.process_time_ns() - began) / 1e3, np.diff(np.array(times)) / 1e3


def _timing(cpu: float, wall: NDArray[np.float64]) -> Timing:
    return Timing(float(cpu), float(wall.mean()), float(np.median(wall)), float(np.percentile(wall, 95)))


def throughput(
    engines: Mapping[str, Engine], questions: Questions, k: int, threads: int, rounds: int
) -> dict[str, float]:
    """Questions a second with so many threads asking at once; the best of the rounds, by turns."""
    found = dict.fromkeys(engines, 0.0)
    for _ in range(rounds):
        for name, engine in engines.items():
            found[name] = max(found[name], _asked_at_once(engine, questions, k, threads))
    return found


def _asked_at_once(engine: Engine, questions: Questions, k: int, threads: int) -> float:
    shares = [questions[number::threads].tolist() for number in range(threads)]
    ready = threading.Barrier(threads + 1)

    def ask(share: Sequence[int]) -> None:
        engine.search(share[0], k)  # a thread's scratch is made by its first search
        ready.wait()
        for question in share:
            engine.search(question, k)

    running = [threading.Thread(target=ask, args=(share,)) for share in shares]
    for thread in running:
        thread.start()
    ready.wait()
    began = time.perf_counter()
    for thread in running:
        thread.join()
    return len(questions) / (time.perf_counter() - began)


class Spinner:
    """A Python thread that counts as fast as it may, and remembers its longest pause."""

    def __init__(self) -> None:
        self.count, self.longest, self._stop = 0, 0.0, False

    def run(self) -> None:
        """Until `stopped`."""
        last = time.perf_counter()
        while not self._stop:
            now = time.perf_counter()
            self.count, self.longest, last = self.count + 1, max(self.longest, now - last), now

    @contextmanager
    def running(self) -> Iterator[None]:
        """Count inside of the block."""
        thread = threading.Thread(target=self.run)
        thread.start()
        try:
            yield
        finally:
            self._stop = True
            thread.join()


def progress(
    engines: Mapping[str, Engine], questions: Questions, k: int, rounds: int, seconds: float = 0.5
) -> dict[str, Progress]:
    """What another thread does beside each engine, asked without pause, and right before beside sleep.

    Of the rounds the one whose share is the median.
    """
    found: dict[str, list[Progress]] = {name: [] for name in engines}
    for _ in range(rounds):
        for name, engine in engines.items():
            idle = _beside(None, questions, k, seconds)
            seen = _beside(engine, questions, k, seconds)
            found[name].append(replace(seen, share=seen.share / idle.share))
    return {name: sorted(each, key=lambda one: one.share)[len(each) // 2] for name, each in found.items()}


def _beside(engine: Engine | None, questions: Questions, k: int, seconds: float) -> Progress:
    """Turns of the other thread a second (as `share`), beside an engine or beside sleep."""
    spinner, asked = Spinner(), 0
    with spinner.running():
        began, counted = time.perf_counter(), spinner.count
        while (passed := time.perf_counter() - began) < seconds:
            if engine is None:
                time.sleep(seconds)
            else:
                engine.search(int(questions[asked % len(questions)]), k)
                asked += 1
        turns = spinner.count - counted
    return Progress(turns / passed, spinner.longest * 1e3, asked / passed)
