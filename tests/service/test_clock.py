"""A wall clock that jumps: nothing that waits, expires or is late looks at it."""

import itertools
import math
import time
from pathlib import Path

import pytest

from tests.running import running

YEARS = 10 * 365.0 * 86_400


@pytest.fixture
def jumping(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every look at the clock finds it ten years later, then ten years earlier."""
    now, jumps = time.time(), itertools.cycle([YEARS, -YEARS])
    monkeypatch.setattr(time, "time", lambda: now + next(jumps))


async def test_deadlines_and_generations_do_not_follow_the_clock(tmp_path: Path, jumping: None):
    async with running(tmp_path, timeout_ms=60_000) as service:
        await service.make()
        await service.put([{"id": "a", "text": "moon"}])
        await service.put([{"id": "b", "text": "moon"}])
        for _ in range(3):
            for pipeline in ("bm25", "dense", "balanced"):
                answer = await service.search("moon", pipeline=pipeline)
                assert ([hit["id"] for hit in answer["hits"]], answer["degraded"]) == (["a", "b"], [])
            assert await service.ids("moon", generation=1) == ["a"], "kept for a minute"


async def test_jobs_are_done_whatever_the_time_is(tmp_path: Path, jumping: None):
    async with running(tmp_path) as service:
        await service.make()
        for name in "abc":
            job = (await service.put([{"id": name, "text": "moon"}]))["job"]["id"]
        shown = await service.ask("GET", f"/v1/jobs/{job}")
        assert (shown["state"], shown["published"], shown["error"]) == ("done", 1, None)
        assert 0 <= shown["rate"] < math.inf
