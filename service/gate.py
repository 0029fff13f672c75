"""So many searches and requests to models are worked on at a time; the rest are refused before they are read.

How many searches these are follows from how fast they go: who would wait for too long is refused at once,
and comes back at a better time.

Queues before nets bound what waits there, but each request that gets as far as a queue has cost the event
loop its parsing. When thousands a second come that cannot be served, that alone would keep the loop from
those that can. A refusal here costs some 30 µs, the server's own work not counted.
"""

import logging
import math
import time

from prometheus_client import Counter
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.error_shapes import WIRES
from service.errors import BusyError
from service.flow import Flow
from service.guards import refuse
from service.log_lines import fields
from service.turns import Turns

log = logging.getLogger(__name__)

SEARCHES = ("/search", "/search:batch")
"""How the paths of searches end."""

SAY_SECONDS = 10.0
"""So far apart are the lines in the log that say how many were refused; a line each would cost as much as
refusing them.
"""


class Gate:
    """ASGI middleware: lets `most` requests in at a time, each until the last byte of its answer, and of
    searches no more than will have their `turns` in time.

    `longest` bounds, in seconds, what those who are refused are told: by then, what is inside has met its
    deadline.
    """

    def __init__(
        self, app: ASGIApp, flow: Flow, most: int, turns: Turns, longest: float, refused: Counter
    ) -> None:
        self.app = app
        self.flow = flow
        self.most = most
        self.turns = turns
        self.longest = longest
        self.refused = refused
        self._searches = 0  # of those inside
        self._untold, self._told = 0, -math.inf

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] != "http" or not gated(scope["path"]):
            return await self.app(scope, receive, send)
        searches = scope["path"].endswith(SEARCHES)
        full = self._full(searches)
        if full is not None:
            self.refused.inc()
            self._tell()
            return await refuse(full, scope, receive, send)
        refused = False

        async def noting_send(message: Message) -> None:
            nonlocal refused
            refused = refused or message.get("status") == BusyError.status
            await send(message)

        self.flow.enter()
        self._searches += searches
        try:
            await self.app(scope, receive, noting_send)
        finally:
            self.flow.leave(worked=not refused)
            self._searches -= searches
            if refused:
                self._tell()

    def _tell(self) -> None:
        self._untold += 1
        if time.monotonic() - self._told >= SAY_SECONDS:
            log.warning("requests were answered 429", extra=fields(since_told=self._untold))
            self._untold, self._told = 0, time.monotonic()

    def _full(self, searches: bool) -> BusyError | None:
        """Why another request cannot be let in, if it cannot."""
        if self.flow.inside >= self.most:
            said = f"{self.most} requests are being worked on, which is as many as may be (WINNOW_REQUESTS)"
        elif searches and self.turns.full(self._searches):
            said = f"another search would wait for too long, after {self._searches} (WINNOW_QUEUE_MS)"
        else:
            return None
        return BusyError(said, retry_after=min(self.longest, self.flow.seconds()))


def gated(path: str) -> bool:
    """Whether a path is a model endpoint or a search.

    Writes are bounded by what a disk takes, and streams of events last.
    """
    return path in WIRES or path.endswith(SEARCHES)
