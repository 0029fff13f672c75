"""The crossing from the event loop to threads: CPU work runs here, so the loop stays free to answer.

One pool with as many threads as cores. Kernels are serial and release the GIL, so requests run side by side,
and more threads than cores would only make all of them late. Running work cannot be stopped; work whose
caller has gone before it began never runs.
"""

import asyncio
import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from typing import TypeVar, TypeVarTuple

Arguments = TypeVarTuple("Arguments")
Result = TypeVar("Result")


def cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0))


class Workers:
    """A pool of `threads` threads, by default one per core; `waited` hears from them how long work stood in
    line, in seconds.
    """

    def __init__(self, threads: int | None = None, waited: Callable[[float], None] | None = None) -> None:
        self.threads = threads or cores()
        self._waited = waited
        self._pool = ThreadPoolExecutor(self.threads, thread_name_prefix="worker")

    async def run(self, work: Callable[[*Arguments], Result], *arguments: *Arguments) -> Result:
        """`work(*arguments)` in a thread; raises what it raises. Cancelling takes it off the queue.

        The thread has the caller's context variables, so what it logs is known to be the request's.
        """
        context, since = copy_context(), time.perf_counter()

        def begin() -> Result:
            if self._waited is not None:
                self._waited(time.perf_counter() - since)
            return context.run(work, *arguments)

        return await asyncio.get_running_loop().run_in_executor(self._pool, begin)

    def close(self) -> None:
        """Drop what has not begun and wait for what has."""
        self._pool.shutdown(cancel_futures=True)
