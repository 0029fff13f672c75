"""A redis-server of a test's own: a real one, on a free port, with the durability that the log asks for."""

import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import redis

STARTS_WITHIN = 10.0


class RedisServer:
    """A process that can be killed and started again over the same files."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.port = _free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, and return when it answers."""
        program = shutil.which("redis-server")
        assert program, (
            "the tests need redis-server: `make test` installs it, or `apt-get install redis-server`"
        )
        options = {"port": self.port, "bind": "127.0.0.1", "dir": self.directory, "save": ""}
        durable = {"appendonly": "yes", "appendfsync": "always", "maxmemory-policy": "noeviction"}
        flags = [word for name, value in {**options, **durable}.items() for word in (f"--{name}", str(value))]
        self._process = subprocess.Popen([program, *flags], stdout=subprocess.DEVNULL)
        until = time.monotonic() + STARTS_WITHIN
        with redis.Redis.from_url(self.url) as client:
            while not _answers(client):
                assert time.monotonic() < until, "redis-server did not start"
                time.sleep(0.01)

    def client(self) -> redis.Redis:
        """A client of it, for tests to look inside."""
        return redis.Redis.from_url(self.url)

    def empty(self) -> None:
        """Forget everything."""
        with self.client() as client:
            client.flushall()

    def kill(self) -> None:
        """End it as a power cut would."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


@contextmanager
def redis_server(directory: Path) -> Iterator[RedisServer]:
    """Run one whose files are in `directory`, as long as the context lasts."""
    directory.mkdir(parents=True, exist_ok=True)
    server = RedisServer(directory)
    server.start()
    try:
        yield server
    finally:
        server.kill()


def _answers(client: redis.Redis) -> bool:
    with suppress(redis.ConnectionError):  # BusyLoadingError, while it reads its files, is one
        return bool(client.ping())
    return False


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port
