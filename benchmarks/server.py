"""A server in a process of its own, for as long as a measurement takes."""

import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import httpx


class Running(NamedTuple):
    """A server that answers: who asks it, and which process it is."""

    client: httpx.Client
    port: int
    pid: int


@contextmanager
def served(command: Sequence[str], probe: str) -> Iterator[httpx.Client]:
    """Start a server on a free port and wait until it answers. Its client wants no answers from a cache."""
    with running(command, probe) as server:
        yield server.client


@contextmanager
def running(command: Sequence[str], probe: str) -> Iterator[Running]:
    """The same, with port and process."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    process = subprocess.Popen([*command, "--port", str(port)])
    try:
        address, anew = f"http://127.0.0.1:{port}", {"Cache-Control": "no-cache"}
        with httpx.Client(base_url=address, timeout=60, headers=anew) as client:
            _wait(client, probe, process)
            yield Running(client, port, process.pid)
    finally:
        process.terminate()
        process.wait()


def _wait(client: httpx.Client, probe: str, process: subprocess.Popen[bytes]) -> None:
    while process.poll() is None:
        try:
            if client.get(probe).status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.1)
    raise RuntimeError(f"the server ended with status {process.returncode}")
