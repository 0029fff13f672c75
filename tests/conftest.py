"""Fixtures that many tests need."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.running import Service, running


@pytest.fixture
async def service(tmp_path: Path) -> AsyncIterator[Service]:
    """An empty service with default settings."""
    async with running(tmp_path) as service:
        yield service
