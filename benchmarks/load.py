"""A load generator in a process of its own, cheap enough to share its cores with the server it asks.

A request costs it some 30 to 50 µs, since it writes prepared bytes to sockets that are kept open and reads no
more of an answer than status, length and `Retry-After`. Two kinds of load:

* `Closed`: so many clients, each of which sends its next request when it has the answer to the last. The
  server sets the pace, which shows how much it can do.
* `Open`: requests come at a rate, answered or not, each on a connection that has nothing else to do, or on a
  new one. Time counts from when a request was due, so a generator that is late makes no server look fast.

`measure(job)` starts the process (`python -m benchmarks.load`: a job as JSON in, answers as JSON out);
`drive(job)` is the same inside a running event loop.
"""

import asyncio
import json
import random
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import count, takewhile
from typing import NamedTuple, Protocol, cast

import numpy as np
from numpy.typing import NDArray

BROKEN = 0
"""The status of a request that had no connection, or none that lasted until the answer was whole."""

LONGEST = 120.0
"""Seconds after which an answer is no longer waited for; it counts as broken."""


@dataclass(frozen=True)
class Closed:
    """`clients` that ask one after another for `seconds`; before that, `warm` seconds that are not counted.

    A request counts if its answer comes within the `seconds`. Answers from a cache are taken if `cached`.
    """

    port: int
    path: str
    bodies: Sequence[str]  # JSON, sent by turns
    clients: int
    seconds: float
    warm: float = 1.0
    cached: bool = False


@dataclass(frozen=True)
class Open:
    """Requests that are due at `rate` a second for `seconds`, as chance will have it or, if `even`, evenly.

    No answer comes from a cache. Each of the last `patient` requests that were refused with a `Retry-After`
    by the time the last request is due is sent once more, when that time has passed.
    """

    port: int
    path: str
    bodies: Sequence[str]
    rate: float
    seconds: float
    even: bool = False
    patient: int = 0


class Answer(NamedTuple):
    """What became of a request: seconds from the start to when it was due, and from there to its answer.

    `late` are the seconds from when it was due to when it was sent, which the generator owes it.
    """

    due: float
    seconds: float
    status: int
    retry_after: float | None  # seconds, as the header says
    late: float


class Outcome(NamedTuple):
    """What became of a load."""

    answers: list[Answer]
    retried: list[Answer]

    def statuses(self) -> list[int]:
        """Each status that came, once."""
        return sorted({answer.status for answer in self.answers})

    def milliseconds(self, *statuses: int) -> NDArray[np.float64]:
        """How long each answer with one of these statuses (none named: any) took: float64 [answers]."""
        taken = [each.seconds for each in self._with(statuses)]
        return 1000 * np.array(taken, np.float64)

    def milliseconds_once_sent(self, *statuses: int) -> NDArray[np.float64]:
        """The same, without the time by which the generator was late."""
        taken = [each.seconds - each.late for each in self._with(statuses)]
        return 1000 * np.array(taken, np.float64)

    def late(self) -> NDArray[np.float64]:
        """Milliseconds by which the generator was late: float64 [answers]."""
        return 1000 * np.array([each.late for each in self.answers], np.float64)

    def _with(self, statuses: tuple[int, ...]) -> list[Answer]:
        return [each for each in self.answers if not statuses or each.status in statuses]


def percentiles(milliseconds: NDArray[np.float64], *which: float) -> list[float]:
    """These percentiles, nan where there is nothing."""
    return [float(np.percentile(milliseconds, each)) if len(milliseconds) else float("nan") for each in which]


def measure(job: Closed | Open) -> Outcome:
    """Run a load in a process of its own, on the cores that this process may use."""
    given = json.dumps({type(job).__name__: asdict(job)})
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.load"], input=given, stdout=subprocess.PIPE, text=True, check=True
    )
    answers, retried = json.loads(done.stdout)
    return Outcome([Answer(*each) for each in answers], [Answer(*each) for each in retried])


async def drive(job: Closed | Open) -> Outcome:
    """Run a load; it returns when every answer has come."""
    return await (_closed(job) if isinstance(job, Closed) else _open(job))


class _Connection(asyncio.Protocol):
    """One connection, which carries one request at a time."""

    def __init__(self) -> None:
        self.usable = True
        self._answer: asyncio.Future[tuple[int, float | None]] | None = None
        self._received = b""
        self._length: int | None = None  # of the whole answer, known when its head has come
        self._status = BROKEN
        self._retry_after: float | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's is none by inheritance

    async def ask(self, request: bytes) -> tuple[int, float | None]:
        """Status and `Retry-After` of the answer."""
        self._answer = asyncio.get_running_loop().create_future()
        self.transport.write(request)
        try:
            async with asyncio.timeout(LONGEST):
                return await self._answer
        except TimeoutError:
            self.transport.abort()
            self.usable = False
            return BROKEN, None

    def data_received(self, data: bytes) -> None:
        self._received += data
        if self._length is None and b"\r\n\r\n" in self._received:
            self._read_head()
        if self._length is not None and len(self._received) >= self._length:
            self._received, self._length = self._received[self._length :], None
            self._finish(self._status, self._retry_after)

    def connection_lost(self, error: Exception | None) -> None:
        self.usable = False
        self._finish(BROKEN, None)

    def _read_head(self) -> None:
        head = self._received.partition(b"\r\n\r\n")[0]
        lines = head.decode("latin-1").split("\r\n")
        fields = dict(line.lower().split(": ", 1) for line in lines[1:])
        self._length = len(head) + 4 + int(fields["content-length"])
        self._status = int(lines[0].split()[1])
        self._retry_after = float(fields["retry-after"]) if "retry-after" in fields else None
        self.usable = fields.get("connection") != "close"

    def _finish(self, status: int, retry_after: float | None) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_result((status, retry_after))


class _Client:
    """Asks on connections that it keeps open, each request on one of its own."""

    def __init__(self, job: Closed | Open) -> None:
        self._port = job.port
        cached = isinstance(job, Closed) and job.cached
        self._requests = [_request(job.path, body, cached) for body in job.bodies]
        self._numbers = count()
        self._idle: list[_Connection] = []

    async def ask(self) -> tuple[int, float | None]:
        """Send the request whose turn it is."""
        request = self._requests[next(self._numbers) % len(self._requests)]
        try:
            connection = await self._connection()
        except OSError:
            return BROKEN, None
        answer = await connection.ask(request)
        if connection.usable:
            self._idle.append(connection)
        return answer

    def close(self) -> None:
        for connection in self._idle:
            connection.transport.close()

    async def _connection(self) -> _Connection:
        while self._idle:
            connection = self._idle.pop()
            if connection.usable:
                return connection
        loop = asyncio.get_running_loop()
        return (await loop.create_connection(_Connection, "127.0.0.1", self._port))[1]


class _Ask(Protocol):
    async def __call__(self, due: float) -> Answer: ...


def _request(path: str, body: str, cached: bool) -> bytes:
    content = body.encode()
    anew = "" if cached else "Cache-Control: no-cache\r\n"
    head = (
        f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
        f"{anew}Content-Length: {len(content)}\r\n\r\n"
    )
    return head.encode() + content


async def _closed(job: Closed) -> Outcome:
    client = _Client(job)
    answers: list[Answer] = []
    begins = time.monotonic() + job.warm
    ends = begins + job.seconds

    async def one() -> None:
        while (due := time.monotonic()) < ends:
            status, retry_after = await client.ask()
            answered = time.monotonic()
            if begins <= answered < ends:
                answers.append(Answer(due - begins, answered - due, status, retry_after, 0.0))

    await asyncio.gather(*(one() for _ in range(job.clients)))
    client.close()
    return Outcome(answers, [])


async def _open(job: Open) -> Outcome:
    client = _Client(job)
    began = time.monotonic()
    answers: list[Answer] = []

    async def ask(due: float) -> Answer:
        late = time.monotonic() - began - due
        status, retry_after = await client.ask()
        return Answer(due, time.monotonic() - began - due, status, retry_after, late)

    async def ask_and_keep(due: float) -> None:
        answers.append(await ask(due))

    async with asyncio.TaskGroup() as group:
        for due in _times(job):
            await asyncio.sleep(max(0.0, began + due - time.monotonic()))  # answers are read even when late
            group.create_task(ask_and_keep(due))
        refused = [answer for answer in answers if answer.retry_after is not None]
        last = refused[max(0, len(refused) - job.patient) :]
        retries = [group.create_task(_retry(answer, ask, began)) for answer in last]
    client.close()
    return Outcome(answers, [retry.result() for retry in retries])


async def _retry(refused: Answer, ask: _Ask, began: float) -> Answer:
    """Come back when it was said, counted from when the refusal came."""
    assert refused.retry_after is not None
    due = refused.due + refused.seconds + refused.retry_after
    await asyncio.sleep(max(0.0, began + due - time.monotonic()))
    return await ask(due)


def _times(job: Open) -> Iterator[float]:
    """Seconds at which requests are due; the same at every call."""
    if job.even:
        return iter([number / job.rate for number in range(round(job.rate * job.seconds))])
    return takewhile(lambda due: due < job.seconds, _by_chance(job.rate))


def _by_chance(rate: float) -> Iterator[float]:
    """A Poisson process."""
    generator, due = random.Random(0), 0.0
    while True:
        due += generator.expovariate(rate)
        yield due


def main() -> None:
    """Read a job, run it, write what became of it."""
    import uvloop

    ((kind, values),) = json.load(sys.stdin).items()
    outcome = uvloop.run(drive({"Closed": Closed, "Open": Open}[kind](**values)))
    json.dump(outcome, sys.stdout)


if __name__ == "__main__":
    main()
