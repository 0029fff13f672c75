"""Fixtures that many tests need.

Kernels are compiled once for this process and all those that tests start: the variable is read when numba is
imported, so it is set before anything of ours is.
"""

import hashlib
import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from service.commands.common import kernel_version

os.environ.setdefault(
    "NUMBA_CACHE_DIR", str(Path(__file__).parents[1] / ".pytest_cache" / "numba" / kernel_version())
)
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

from tests.redis_server import RedisServer, redis_server
from tests.running import Service, running


@pytest.fixture
async def service(tmp_path: Path) -> AsyncIterator[Service]:
    """An empty service with default settings."""
    async with running(tmp_path) as service:
        yield service


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisServer]:
    """A redis-server of the test's own."""
    with redis_server(tmp_path / "redis") as server:
        yield server


@pytest.fixture(scope="session")
def smollm2() -> Path:
    """A cache of weights where the default decoder of reranking in context is, converted already.

    Converting takes 15 seconds, so what this version of the converter made is kept for later runs.
    """
    from models.in_context.opened import opened
    from models.load import SMOLLM2

    root = Path(__file__).parents[1]
    version = hashlib.sha256((root / "models" / "in_context" / "gguf.py").read_bytes()).hexdigest()[:16]
    cache = root / ".pytest_cache" / "weights" / version
    opened(SMOLLM2, cache)
    return cache
