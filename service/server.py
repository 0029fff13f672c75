"""uvicorn, made to part from its clients in good order: those who are too slow, and all of them at SIGTERM.

At SIGTERM uvicorn alone would close its door at once, on requests that have arrived and were not read yet,
and before a load balancer could notice. Here `/readyz` says so first, and every answer that it is the last of
its connection; the door is closed when nobody has come for a moment, at the latest after `drain_seconds`, and
what is under way then has as long again to end. Ctrl-C, by somebody who sits there, skips the waiting.
"""

import asyncio
import ctypes
import math
import signal
import socket
import struct
import sys
import time
from contextlib import suppress
from types import FrameType
from typing import Any

import uvicorn
from fastapi import FastAPI

from service.connection import Connection
from service.state import State

BACKLOG = 65_535
"""Connections that may wait to be accepted; the system allows fewer. Those beyond it try again only after
seconds, where a refusal takes milliseconds."""

QUIET_SECONDS = 1.0
"""When nobody has come for so long, everybody knows."""

LINGER_SECONDS = 2.0
"""For those who came through the door before it closed to say what they want."""

TICK_SECONDS = 0.1

SO_ATTACH_FILTER = 26
DROP_SYN = (
    (0x30, 0, 0, 13),  # load the flags of the TCP header
    (0x54, 0, 0, 0x12),  # of these SYN and ACK
    (0x15, 0, 1, 0x02),  # if SYN alone
    (0x06, 0, 0, 0),  # drop, else
    (0x06, 0, 0, 0xFFFF_FFFF),  # let pass
)
"""A packet filter, in the system's instructions: code, where to if true, if false, operand."""


def make(app: FastAPI, **options: Any) -> "Server":
    """A server of the application; `options` are uvicorn's."""
    seconds = app.state.winnow.settings.drain_seconds
    config = uvicorn.Config(
        app,
        http=Connection,
        ws="none",
        access_log=False,
        server_header=False,
        backlog=BACKLOG,
        timeout_graceful_shutdown=math.ceil(seconds),
        **options,
    )
    return Server(config, app.state.winnow)


class Server(uvicorn.Server):
    """One server of one application."""

    def __init__(self, config: uvicorn.Config, state: State) -> None:
        super().__init__(config)
        self.state = state
        self._terminated = False

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """At SIGTERM begin to leave. uvicorn would raise it again at the end, and so exit with an error."""
        if sig == signal.SIGTERM:
            self._terminated = self.should_exit = True
        else:
            super().handle_exit(sig, frame)

    async def on_tick(self, counter: int) -> bool:
        """Every second look for clients that are too slow."""
        if counter % round(1 / TICK_SECONDS) == 0:
            for connection in self._connections():
                connection.give_up_after(self.state.settings.body_seconds)
        return await super().on_tick(counter)

    async def main_loop(self) -> None:
        """Serve until told to stop, and then for those who do not know yet."""
        await super().main_loop()
        if self._terminated:
            await self._drain()

    async def _drain(self) -> None:
        self.state.draining.set()
        began = busy = time.monotonic()
        served, counter = self.server_state.total_requests, 0
        while not self.force_exit and time.monotonic() < began + self.state.settings.drain_seconds:
            await asyncio.sleep(TICK_SECONDS)
            await self.on_tick(counter := counter + 1)
            if self.server_state.tasks or self.server_state.total_requests != served:
                served, busy = self.server_state.total_requests, time.monotonic()
            if time.monotonic() > busy + QUIET_SECONDS:
                return

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Close the door behind all that have come, wait for them, and stop the application."""
        if self._terminated:
            for listening in sockets or []:
                take_no_more(listening)
            await asyncio.sleep(TICK_SECONDS)  # handshakes that have begun come to their end
            await asyncio.sleep(TICK_SECONDS)  # and the loop has looked once more, however busy it is
            for server in self.servers:
                server.close()
            await self._linger()
        await super().shutdown(sockets)

    async def _linger(self) -> None:
        """Hear those who have not asked anything yet. Others have been told to go, or had the whole drain."""
        until = time.monotonic() + LINGER_SECONDS
        waiting = True
        while waiting and time.monotonic() < until:
            await asyncio.sleep(TICK_SECONDS)
            waiting = not all(connection.asked for connection in self._connections())

    def _connections(self) -> list[Connection]:
        return [one for one in self.server_state.connections if isinstance(one, Connection)]


def take_no_more(listening: socket.socket) -> None:
    """Have the system drop what would begin a new connection, and nothing else.

    To close at once would reset the connections that wait to be accepted, and more come while one accepts
    them. A client that is not heard tries again after a second, and is refused if the door is closed by then.
    """
    instructions = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *step) for step in DROP_SYN))
    program = struct.pack("HP", len(DROP_SYN), ctypes.addressof(instructions))
    if sys.platform == "linux":
        with suppress(OSError):  # a sandbox may not know it; then some may be reset
            listening.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, program)
