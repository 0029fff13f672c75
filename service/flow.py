"""How fast requests are finished, and so how long as many more will take."""

import math
import time
from collections.abc import Callable

FADE_SECONDS = 2.0
"""After so many seconds of work, what was measured before counts 1/e."""

UNKNOWN_SECONDS = 1.0
"""How long to stay away while no request has been finished yet."""


class Flow:
    """How many requests are being worked on, and how many a second are finished while any are.

    Time in which there is nothing to do says nothing of how fast the service is, and is left out; while fewer
    requests are worked on than there are `threads`, as much of it as there are threads without one.
    """

    def __init__(self, threads: int = 1, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.inside = 0
        self._threads = threads
        self._clock = clock
        self._finished = self._seconds = 0.0
        self._seen = clock()

    def enter(self) -> None:
        """One comes in."""
        self._advance()
        self.inside += 1

    def leave(self, *, worked: bool = True) -> None:
        """One goes. It is finished however it ended, unless it was never `worked` on: a queue refused it."""
        self._advance()
        self.inside -= 1
        self._finished += worked

    def seconds(self) -> float:
        """Until all that are inside will have been finished, at the speed of late."""
        pace = self.pace()
        return UNKNOWN_SECONDS if pace is None else self.inside * pace

    def pace(self) -> float | None:
        """Seconds from one that is finished to the next, of late; None before the first."""
        self._advance()
        return self._seconds / self._finished if self._finished else None

    def _advance(self) -> None:
        now = self._clock()
        if self.inside:
            passed = (now - self._seen) * min(1.0, self.inside / self._threads)
            fade = math.exp(-passed / FADE_SECONDS)
            self._finished *= fade
            self._seconds = fade * self._seconds + passed
        self._seen = now
