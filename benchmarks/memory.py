"""How much memory a process has while something lasts, and whether it grows."""

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np


@contextmanager
def memory(pid: int, seconds: float = 1.0) -> Iterator[list[float]]:
    """MiB that a process has in memory, every so many seconds as long as the context lasts."""
    sizes: list[float] = []
    over = threading.Event()

    def watch() -> None:
        while not over.is_set():
            sizes.append(_resident(pid))
            over.wait(seconds)

    watching = threading.Thread(target=watch)
    watching.start()
    try:
        yield sizes
    finally:
        over.set()
        watching.join()


def slope(sizes: Sequence[float], seconds: float = 1.0) -> float:
    """MiB a minute in the second half: the first fills queues and caches. nan where there is too little."""
    half = sizes[len(sizes) // 2 :]
    return 60 / seconds * float(np.polyfit(range(len(half)), half, 1)[0]) if len(half) > 1 else float("nan")


def _resident(pid: int) -> float:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS:")) / 1024
