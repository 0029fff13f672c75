"""The load generator counts right, against a server that says what it saw."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import numpy as np
import pytest

from benchmarks.load import BROKEN, Closed, Open, drive, measure

DELAY = 0.02


class Seen:
    """A server that takes DELAY for an answer, and what it saw.

    Of `refused` requests each is answered 429; to the body "hang up" it closes the connection.
    """

    def __init__(self, refused: int = 0) -> None:
        self.refused = refused
        self.bodies: list[str] = []
        self.connections = self.asked = self.most = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while body := await _body(reader):
                self.asked += 1
                self.most = max(self.most, self.asked)
                await asyncio.sleep(DELAY)
                self.asked -= 1
                self.bodies.append(body)
                if body == '"hang up"':
                    break
                writer.write(self._answer())
        finally:
            writer.close()

    def _answer(self) -> bytes:
        if self.refused:
            self.refused -= 1
            return b"HTTP/1.1 429 Too Many Requests\r\nRetry-After: 1\r\ncontent-length: 2\r\n\r\n{}"
        return b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\n[{}]"


async def _body(reader: asyncio.StreamReader) -> str | None:
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError:
        return None
    length = next(line for line in head.decode().splitlines() if line.startswith("Content-Length: "))
    return (await reader.readexactly(int(length.split()[1]))).decode()


@asynccontextmanager
async def serving(seen: Seen) -> AsyncIterator[int]:
    server = await asyncio.start_server(seen.serve, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


async def test_clients_wait_for_their_answers():
    seen = Seen()
    async with serving(seen) as port:
        outcome = await drive(Closed(port, "/", ['"a"', '"b"'], clients=3, seconds=0.3, warm=0.1))
    assert seen.most == seen.connections == 3
    assert set(seen.bodies) == {'"a"', '"b"'}
    assert outcome.statuses() == [200]
    assert all(answer.seconds >= DELAY for answer in outcome.answers)
    # Three clients cannot have more answers than that, and those of the warm seconds are left out.
    assert 0 < len(outcome.answers) <= 3 * (0.3 / DELAY + 1)
    assert len(outcome.answers) < len(seen.bodies)


async def test_a_rate_does_not_wait_for_answers():
    seen = Seen()
    async with serving(seen) as port:
        outcome = await drive(Open(port, "/", ["1"], rate=200, seconds=0.25, even=True))
    assert len(seen.bodies) == len(outcome.answers) == 50
    owed = outcome.milliseconds(200) - outcome.milliseconds_once_sent(200)
    np.testing.assert_allclose(owed, outcome.late())
    assert outcome.late().min() >= 0
    assert outcome.milliseconds_once_sent(200).min() >= 1000 * DELAY
    assert sorted(answer.due for answer in outcome.answers) == [number / 200 for number in range(50)]
    assert seen.most > 1
    assert outcome.milliseconds(200).min() >= 1000 * DELAY


async def test_who_was_refused_last_comes_back_when_told_to():
    seen = Seen(refused=4)
    async with serving(seen) as port:
        outcome = await drive(Open(port, "/", ["1"], rate=100, seconds=0.1, even=True, patient=2))
    refused = [answer for answer in outcome.answers if answer.status == 429]
    assert [answer.retry_after for answer in refused] == [1.0] * 4
    assert [answer.status for answer in outcome.retried] == [200, 200]
    assert [again.due for again in outcome.retried] == pytest.approx(
        [first.due + first.seconds + 1 for first in refused[2:]]
    )
    assert len(seen.bodies) == 12


async def test_chance_comes_at_the_rate():
    seen = Seen()
    async with serving(seen) as port:
        outcome = await drive(Open(port, "/", ["1"], rate=1000, seconds=0.3))
    assert len(outcome.answers) == pytest.approx(300, abs=60)  # more than three standard deviations
    assert outcome.statuses() == [200]


async def test_a_connection_that_is_closed_is_counted_and_replaced():
    seen = Seen()
    async with serving(seen) as port:
        outcome = await drive(
            Open(port, "/", ['"hang up"', '"stay"'], rate=20, seconds=0.2, even=True),
        )
    assert [answer.status for answer in outcome.answers] == [BROKEN, 200, BROKEN, 200]
    assert seen.connections == 3


async def test_a_process_of_its_own_counts_the_same():
    seen = Seen()
    async with serving(seen) as port:
        job = Open(port, "/", ['"é"'], rate=50, seconds=0.1, even=True)
        outcome = await asyncio.to_thread(measure, job)
    assert seen.bodies == ['"é"'] * 5
    assert [answer.status for answer in outcome.answers] == [200] * 5
    assert outcome.answers[0].seconds >= DELAY
