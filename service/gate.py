"""So many searches and requests to models are worked on at a time; the rest are refused before they are read.

Queues before nets bound what waits there, but each request that gets as far as a queue has cost the event
loop its parsing. When thousands a second come that cannot be served, that alone would keep the loop from
those that can. A refusal here costs some 30 µs, the server's own work not counted.
"""

import logging
import math
import time
from collections.abc import Callable

from prometheus_client import Counter
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.error_shapes import WIRES
from service.errors import BusyError
from service.guards import refuse
from service.log_lines import fields

log = logging.getLogger(__name__)

SEARCHES = ("/search", "/search:batch")
"""How the paths of searches end."""

FADE_SECONDS = 2.0
"""After so many seconds of work, what was measured before counts 1/e."""

UNKNOWN_SECONDS = 1.0
"""How long to stay away while no request has been finished yet."""

SAY_SECONDS = 10.0
"""So far apart are the lines in the log that say how many were refused; a line each would cost as much as
refusing them.
"""


class Flow:
    """How many requests are being worked on, and how many a second are finished while any are.

    Time in which there is nothing to do says nothing of how fast the service is, and is left out.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.inside = 0
        self._clock = clock
        self._finished = self._seconds = 0.0
        self._seen = clock()

    def enter(self) -> None:
        """One comes in."""
        self._advance()
        self.inside += 1

    def leave(self, *, refused: bool = False) -> None:
        """One goes. It is finished however it ended, unless a queue `refused` it, which is no work done."""
        self._advance()
        self.inside -= 1
        self._finished += not refused

    def seconds(self) -> float:
        """Until all that are inside will have been finished, at the speed of late."""
        self._advance()
        return self.inside * self._seconds / self._finished if self._finished else UNKNOWN_SECONDS

    def _advance(self) -> None:
        now = self._clock()
        if self.inside:
            passed = now - self._seen
            fade = math.exp(-passed / FADE_SECONDS)
            self._finished *= fade
            self._seconds = fade * self._seconds + passed
        self._seen = now


class Gate:
    """ASGI middleware: lets `most` requests in at a time, each until the last byte of its answer.

    `longest` bounds, in seconds, what those who are refused are told: by then, what is inside has met its
    deadline.
    """

    def __init__(self, app: ASGIApp, flow: Flow, most: int, longest: float, refused: Counter) -> None:
        self.app = app
        self.flow = flow
        self.most = most
        self.longest = longest
        self.refused = refused
        self._untold, self._told = 0, -math.inf

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] != "http" or not gated(scope["path"]):
            return await self.app(scope, receive, send)
        if self.flow.inside >= self.most:
            self.refused.inc()
            self._tell()
            return await refuse(self._full(), scope, receive, send)
        refused = False

        async def noting_send(message: Message) -> None:
            nonlocal refused
            refused = refused or message.get("status") == BusyError.status
            await send(message)

        self.flow.enter()
        try:
            await self.app(scope, receive, noting_send)
        finally:
            self.flow.leave(refused=refused)
            if refused:
                self._tell()

    def _tell(self) -> None:
        self._untold += 1
        if time.monotonic() - self._told >= SAY_SECONDS:
            log.warning("requests were answered 429", extra=fields(since_told=self._untold))
            self._untold, self._told = 0, time.monotonic()

    def _full(self) -> BusyError:
        return BusyError(
            f"{self.most} requests are being worked on, which is as many as may be (WINNOW_REQUESTS)",
            retry_after=min(self.longest, self.flow.seconds()),
        )


def gated(path: str) -> bool:
    """Whether a path is a model endpoint or a search.

    Writes are bounded by what a disk takes, and streams of events last.
    """
    return path in WIRES or path.endswith(SEARCHES)
