"""Clients that keep the service waiting, on raw sockets: what becomes of them, and of everybody else."""

import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from service.connection import HEAD_BYTES
from tests.serving import serving

PATIENCE = 1.0
HEAD = b"GET /livez HTTP/1.1\r\nHost: winnow\r\n\r\n"
SEARCH = b"POST /v1/collections/c/search HTTP/1.1\r\nHost: winnow\r\nContent-Type: application/json\r\n"


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with serving(tmp_path_factory.mktemp("slow"), body_seconds=PATIENCE) as (url, state):
        while state.warmup.pending:
            time.sleep(0.05)
        yield url


def connect(url: str) -> socket.socket:
    address = urlsplit(url)
    return socket.create_connection((address.hostname, address.port), timeout=20)


def rest(connection: socket.socket) -> bytes:
    """All that comes until the service closes the connection."""
    received = b""
    while part := connection.recv(65536):
        received += part
    return received


def trickle(connection: socket.socket, part: bytes) -> None:
    """Send the same again and again until the service closes the connection."""
    with suppress(BrokenPipeError, ConnectionResetError):
        for _ in range(100):
            connection.sendall(part)
            time.sleep(0.1)
        pytest.fail("nobody closed it")


def test_half_a_head_is_given_up_and_a_connection_on_which_nothing_comes_is_closed(url: str):
    halves = [b"", b"G", b"GET /livez HTTP/1.1\r\nHos", HEAD + HEAD[:-2]]
    with ExitStack() as stack:
        connections = [stack.enter_context(closing(connect(url))) for _ in halves]
        for connection, half in zip(connections, halves, strict=True):
            connection.sendall(half)
        nothing, *refusals, after_another = [rest(connection) for connection in connections]
    assert nothing == b""
    whole, _, refusal = after_another.partition(b"HTTP/1.1 408")
    assert whole.startswith(b"HTTP/1.1 200 OK")
    for answer in (*refusals, b"HTTP/1.1 408" + refusal):
        assert answer.startswith(b"HTTP/1.1 408")
        assert b"connection: close" in answer
        assert b"content-type: application/problem+json" in answer
        assert b'"code":"head_too_slow"' in answer


def test_the_server_does_not_name_itself(url: str):
    assert "server" not in httpx.get(f"{url}/livez").headers


def test_bytes_that_begin_nothing_keep_no_connection(url: str):
    with closing(connect(url)) as connection:
        connection.sendall(HEAD)
        trickle(connection, b"\r\n")


def test_a_body_that_nobody_waits_for_keeps_no_connection(url: str):
    with closing(connect(url)) as connection:
        connection.sendall(b"POST /nowhere HTTP/1.1\r\nHost: winnow\r\nContent-Length: 1000\r\n\r\n")
        assert b"HTTP/1.1 404" in connection.recv(65536)
        trickle(connection, b"x")


def test_a_head_without_end_is_refused(url: str):
    with closing(connect(url)) as connection:
        connection.sendall(b"GET /livez HTTP/1.1\r\n")
        trickle(connection, b"X: " + b"x" * HEAD_BYTES + b"\r\n")


def test_a_head_that_is_too_large_is_told_so(url: str):
    with closing(connect(url)) as connection:
        connection.sendall(b"GET /livez HTTP/1.1\r\nX: " + b"x" * HEAD_BYTES)
        answer = rest(connection)
    assert answer.startswith(b"HTTP/1.1 431 ")
    assert b'"code":"head_too_large"' in answer


def test_a_head_of_many_parts_that_comes_in_time_is_read(url: str):
    with closing(connect(url)) as connection:
        for part in (HEAD[:5], HEAD[5:9], HEAD[9:]):
            connection.sendall(part)
            time.sleep(0.1)
        assert connection.recv(65536).startswith(b"HTTP/1.1 200 OK")


def test_a_connection_that_is_used_stays(url: str):
    with closing(connect(url)) as connection:
        for _ in range(8):  # longer in all than anybody is waited for
            connection.sendall(HEAD)
            assert connection.recv(65536).startswith(b"HTTP/1.1 200 OK")
            time.sleep(PATIENCE / 5)


PAGES = 100  # of the contract: several times what the system keeps of an answer that is not read


@pytest.fixture
def reading(url: str) -> Iterator[tuple[socket.socket, int]]:
    """A client that has asked for that, and how many bytes it will have when it has read all."""
    length = PAGES * len(httpx.get(f"{url}/openapi.json").content)
    with closing(connect(url)) as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        connection.sendall(b"GET /openapi.json HTTP/1.1\r\nHost: winnow\r\n\r\n" * PAGES)
        yield connection, length


def test_a_client_that_does_not_read_is_cut_off(reading: tuple[socket.socket, int]):
    connection, length = reading
    time.sleep(PATIENCE + 3)
    received = 0
    with suppress(ConnectionResetError):
        while part := connection.recv(2**20):
            received += len(part)
    assert received < length


def test_a_client_that_reads_slowly_gets_its_whole_answer(reading: tuple[socket.socket, int]):
    """For longer than anybody is waited for, and at a rate worth mention."""
    connection, length = reading
    received, began = 0, time.monotonic()
    while received < length:
        part = connection.recv(65536)
        assert part, f"cut off after {received} bytes and {time.monotonic() - began:.1f} s"
        received += len(part)
        time.sleep(0.01)
    assert time.monotonic() - began > PATIENCE


def slow_clients(url: str, number: int) -> list[bytes]:
    """What so many clients are told that send a byte a second, half of them of a head, half of a body."""
    heads = [b"GET /livez HTTP/1.1\r\nX: ", SEARCH + b"Content-Length: 200\r\n\r\n"]
    with ExitStack() as stack:
        connections = [stack.enter_context(closing(connect(url))) for _ in range(number)]
        for place, connection in enumerate(connections):
            connection.sendall(heads[place % 2])
        for _ in range(int(PATIENCE)):
            assert httpx.get(f"{url}/livez").status_code == 200, "others are served meanwhile"
            time.sleep(1)
            for connection in connections:
                connection.sendall(b" ")
        return [rest(connection) for connection in connections]


def test_slow_clients_are_given_up(url: str):
    answers = slow_clients(url, 20)
    assert [answer[:12] for answer in answers] == [b"HTTP/1.1 408"] * 20
    assert httpx.get(f"{url}/livez").status_code == 200


@pytest.mark.slow  # about 5 s
def test_many_slow_clients_are_given_up(tmp_path: Path):
    with serving(tmp_path, body_seconds=PATIENCE, requests=200) as (url, state):
        answers = slow_clients(url, 200)
        assert [answer[:12] for answer in answers] == [b"HTTP/1.1 408"] * 200
        metrics = state.metrics.exposition().decode()
    assert "winnow_open_requests 0.0" in metrics, "no place is taken"
