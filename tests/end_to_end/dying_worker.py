"""A worker that is killed, as by the system, right before the n-th time it asks for something durable.

Run as `python -m tests.end_to_end.dying_worker ROOT N`; with N = 0 it lives until somebody else kills it. The
production code knows nothing of this: the functions of `os` that it calls are replaced around it.
"""

import os
import signal
import sys
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

from indexer.worker import run_worker
from tests.nets import word_overlap

DURABLE = ("fsync", "replace", "rename", "link", "unlink")


def before_each(act: Callable[[int], None]) -> None:
    """Call `act` with 1, 2, 3, … before every call that makes something durable or takes it away."""
    numbers = count(1)

    def watched(original: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            act(next(numbers))
            return original(*arguments, **options)

        return call

    for name in DURABLE:
        setattr(os, name, watched(getattr(os, name)))


def main(root: str, fatal: str) -> None:
    def die(number: int) -> None:
        if number == int(fatal):
            os.kill(os.getpid(), signal.SIGKILL)

    before_each(die)
    run_worker(Path(root), word_overlap, parent_pipe=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
