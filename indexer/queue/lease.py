"""The right to write a collection, among workers of several machines: a key in Redis that runs out.

On one machine the lock on the collection's file decides (`indexer.lock`), and at once: the system drops it
when its holder dies. So whoever has that lock may take a lease from a holder of the same machine, which must
be dead; one of another machine is waited for until it runs out. The machine is its boot: containers of one
host share it, and its file locks.
"""

import threading
import time
import uuid
from contextlib import suppress
from functools import cache
from pathlib import Path

from indexer.queue.contract import LogUnavailable
from indexer.queue.server import Server

LEASE_SECONDS = 15.0

_TAKE = """
local holder = redis.call('GET', KEYS[1] .. 'lease')
if holder and string.sub(holder, 1, #ARGV[2]) ~= ARGV[2] then
    return redis.call('PTTL', KEYS[1] .. 'lease')
end
redis.call('SET', KEYS[1] .. 'lease', ARGV[1], 'PX', ARGV[3])
return -1
"""

_RENEW = """
if redis.call('GET', KEYS[1] .. 'lease') ~= ARGV[1] then return 0 end
return redis.call('PEXPIRE', KEYS[1] .. 'lease', ARGV[2])
"""

_RELEASE = """
if redis.call('GET', KEYS[1] .. 'lease') == ARGV[1] then redis.call('DEL', KEYS[1] .. 'lease') end
"""


class Leased(Exception):  # noqa: N818 (it says a state)
    """A worker of another machine has the lease."""


class Lease:
    """Holds the lease of the log called `name` from when it is made until `release`, renewed by a thread.

    To be taken by whoever has the file lock. Leased while a worker of another machine has it, LogUnavailable
    without Redis.
    """

    def __init__(self, server: Server, name: str, seconds: float = LEASE_SECONDS, machine: str = "") -> None:
        machine = machine or this_machine()
        self._server, self._prefix, self._seconds = server, f"winnow:{{{name}}}:", seconds
        self._owner = f"{machine} {uuid.uuid4().hex}"
        began = time.monotonic()
        left = int(server.run(_TAKE, self._prefix, (self._owner, machine, self._milliseconds)))
        if left >= 0:
            raise Leased(f"a worker of another machine has it for at least {left / 1000:.0f} s more")
        self._until = began + seconds
        self._over = threading.Event()
        threading.Thread(target=self._keep, name="lease", daemon=True).start()

    @property
    def _milliseconds(self) -> int:
        return int(self._seconds * 1000)

    def stands(self) -> bool:
        """Whether nobody else can have it yet, by this machine's own clock."""
        return time.monotonic() < self._until

    def renew(self) -> bool:
        """Have it for its full time from now; False if it is lost. LogUnavailable."""
        began = time.monotonic()
        held = bool(self._server.run(_RENEW, self._prefix, (self._owner, self._milliseconds)))
        self._until = began + self._seconds if held else 0.0
        return held

    def release(self) -> None:
        """Let the next one in at once; without Redis it runs out."""
        self._over.set()
        with suppress(LogUnavailable):
            self._server.run(_RELEASE, self._prefix, (self._owner,))

    def _keep(self) -> None:
        while not self._over.wait(self._seconds / 3) and self.stands():
            with suppress(LogUnavailable):  # until it runs out there is time to try again
                self.renew()


@cache
def this_machine() -> str:
    """What processes that see each other's file locks have in common."""
    return Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
