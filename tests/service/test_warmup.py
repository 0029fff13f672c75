"""What happens between the start and being ready."""

import asyncio
import gc
from pathlib import Path

import httpx

from service.app import create_app
from service.commands.serve import freeze
from service.settings import Settings
from tests.nets import word_overlap


async def test_at_the_end_of_it_one_is_told_before_the_service_is_ready(tmp_path: Path):
    seen: list[list[str]] = []
    settings = Settings(data_dir=tmp_path, worker="external")
    app = create_app(settings, load=word_overlap, warmed=lambda: seen.append([*warmup.pending]))
    warmup = app.state.winnow.warmup
    client = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://winnow")
    async with app.router.lifespan_context(app), client:
        async with asyncio.timeout(60):
            while (await client.get("/readyz")).status_code != 200:
                await asyncio.sleep(0.01)
        assert seen == [["loading encoders"]]


def test_what_is_there_when_it_is_ready_is_left_out_of_garbage_collection():
    kept = [object() for _ in range(10)]
    freeze()
    try:
        assert gc.get_freeze_count() > 1000
        assert not any(each is kept for each in gc.get_objects())
    finally:
        gc.unfreeze()
