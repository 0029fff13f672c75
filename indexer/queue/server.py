"""A Redis server as the logs see it: connections that threads share, and errors a caller can act on."""

import errno
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import redis
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError, OutOfMemoryError, RedisError, ResponseError, TimeoutError
from redis.retry import Retry

from indexer.queue.contract import LogUnavailable

LOOK_SECONDS = 2.0
"""For connections, and for commands that only read."""

CHANGE_SECONDS = 10.0
"""Longer than a large append and its fsync take."""

NEEDED = {"appendonly": "yes", "appendfsync": "always", "maxmemory-policy": "noeviction"}
"""With these an answer means: it is on the disk, and stays there."""


class Server:
    """The server at a redis:// or rediss:// URL. Nothing is sent twice: an append may have been written."""

    def __init__(self, url: str) -> None:
        self.place = _without_password(url)
        self._client = _client(url, LOOK_SECONDS)
        self._changing = _client(url, CHANGE_SECONDS)
        self._scripts: dict[str, Any] = {}

    @contextmanager
    def client(self) -> Iterator[Any]:
        """Give a client to one thread; what goes wrong becomes a LogUnavailable."""
        try:
            yield self._client
        except RedisError as error:
            number, sentence = _reason(error)
            raise LogUnavailable(
                number, f"the operations log is unavailable: {sentence}", self.place
            ) from error

    def run(self, script: str, prefix: str, arguments: Sequence[Any]) -> Any:
        """Run a script on the keys below a prefix."""
        if script not in self._scripts:
            self._scripts[script] = self._changing.register_script(script)
        with self.client():
            return self._scripts[script](keys=[prefix], args=arguments)

    def problem(self) -> str | None:
        """What is wrong with the server, in a sentence: no answer, or it may forget what it answered."""
        try:
            with self.client() as client:
                client.ping()
                found = _configuration(client)
        except LogUnavailable as error:
            return f"Redis at {self.place}: {error.strerror}"
        wrong = [f"{name} {found[name]}" for name, value in NEEDED.items() if found.get(name, value) != value]
        return _forgetful(self.place, wrong) if wrong else None

    def close(self) -> None:
        """Let go of the connections."""
        self._client.close()
        self._changing.close()


def _client(url: str, seconds: float) -> redis.Redis:
    return redis.Redis.from_url(
        url,
        socket_connect_timeout=LOOK_SECONDS,
        socket_timeout=seconds,
        retry=Retry(NoBackoff(), 0),
    )


def _forgetful(place: str, wrong: Sequence[str]) -> str:
    needed = ", ".join(f"{name} {value}" for name, value in NEEDED.items())
    return f"Redis at {place} may lose what it acknowledged: it has {', '.join(wrong)}; it needs {needed}"


def _configuration(client: Any) -> dict[str, str]:
    """The settings that matter; none where the server does not tell, as hosted ones may not."""
    try:
        found: dict[str, str] = client.config_get(*NEEDED)
    except ResponseError:
        return {}
    return found


def _reason(error: RedisError) -> tuple[int, str]:
    """An errno and a sentence."""
    text = str(error)
    if text.startswith("LOST "):
        _, end, expected = text.split()
        return errno.EIO, (
            f"Redis' log ends at operation {end}, but operation {expected} was there before, so Redis has "
            "lost data that it acknowledged: restore its append-only file, or index the documents into a new "
            "collection"
        )
    if isinstance(error, OutOfMemoryError) or "No space left" in text:
        return errno.ENOSPC, f"Redis has no space left ({text})"
    if isinstance(error, TimeoutError):
        return errno.ETIMEDOUT, "Redis did not answer in time; it may have written it"
    if isinstance(error, ConnectionError):
        return errno.ECONNREFUSED, f"Redis cannot be reached ({text})"
    return errno.EIO, f"Redis refuses ({text})"


def _without_password(url: str) -> str:
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
