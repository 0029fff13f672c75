"""A service in this process, on a directory of its own, that is indexed when a test says so.

Everything is real but the encoder, which scores by word overlap, and the transport, which is a function call.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
from fastapi import FastAPI

from indexer.worker import drain
from models.load import SPLADE
from models.roles import Load
from service.app import create_app
from service.settings import Settings
from service.state import State
from tests.nets import word_overlap


class Service:
    """A running application and a client of it."""

    def __init__(self, app: FastAPI, client: httpx.AsyncClient) -> None:
        self.app = app
        self.client = client
        self.load: Load = word_overlap  # what the worker's encoders come from
        self.state: State = app.state.winnow

    async def ask(self, method: str, path: str, status: int = 200, **content: Any) -> Any:
        """Send a request, require a status, and give the body."""
        response = await self.client.request(method, path, **content)
        assert response.status_code == status, f"{method} {path}: {response.status_code} {response.text}"
        return response.json() if response.content else None

    async def make(self, name: str = "c", **schema: Any) -> None:
        """Make a collection."""
        await self.ask("PUT", f"/v1/collections/{name}", 201, json=schema)

    async def put(self, documents: Sequence[dict[str, Any]], name: str = "c") -> Any:
        """Put documents in and index them: one call makes one segment."""
        answer = await self.ask("POST", f"/v1/collections/{name}/documents", 202, json=list(documents))
        await self.index(name)
        return answer

    async def index(self, name: str = "c") -> None:
        """Index what is queued, as the worker would, and show it."""
        root, logs = self.state.settings.data_dir, self.state.catalog.logs
        await asyncio.to_thread(drain, root, name, self.load, None, logs)
        await self.state.catalog.refresh()

    async def search(self, query: str, name: str = "c", status: int = 200, **request: Any) -> Any:
        """Search a collection."""
        body = {"query": query, **request}
        return await self.ask("POST", f"/v1/collections/{name}/search", status, json=body)

    async def ids(self, query: str, name: str = "c", **request: Any) -> list[str]:
        """The ids of the hits of a search."""
        return [hit["id"] for hit in (await self.search(query, name, **request))["hits"]]


@asynccontextmanager
async def running(directory: Path, load: Any = None, **settings: Any) -> AsyncIterator[Service]:
    """A service on `directory`; `load` gives its encoders, `settings` are changed from the defaults.

    Caches are off: most tests ask the same twice to see it answered twice.
    """
    given = {
        "worker": "external",
        "watch_seconds": 0.01,
        "sparse_encoder": SPLADE,
        "cross_encoder": None,
        "result_cache_bytes": 0,
        "encoding_cache_bytes": 0,
        **settings,
    }
    app = create_app(Settings(data_dir=directory, **given), load=load or word_overlap)
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://winnow") as client,
    ):
        yield Service(app, client)
