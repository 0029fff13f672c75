"""Winnow over HTTP as the commands use it: a handful of calls, and every problem as one sentence."""

import time
from collections.abc import Iterable, Iterator
from typing import Any, Self

import httpx

from indexer.document import Document
from service.commands.common import CommandError

BATCH_DOCUMENTS = 500
BATCH_BYTES = 8 * 2**20
BUSY = (httpx.codes.TOO_MANY_REQUESTS, httpx.codes.SERVICE_UNAVAILABLE)
SHOWN_POLL_SECONDS = 0.02
MOST_WAITS = 100  # for a busy service, before giving up


class Client:
    """A connection to one service, for use in a `with` statement."""

    def __init__(self, url: str, api_key: str | None = None) -> None:
        headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        self._http = httpx.Client(base_url=url, headers=headers, timeout=60.0)

    def __enter__(self) -> Self:
        """Return the client itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close its connections."""
        self._http.close()

    def is_ready(self) -> bool:
        """Return whether the service is there and can serve retrieval."""
        try:
            return self._http.get("/readyz").status_code == httpx.codes.OK
        except httpx.TransportError:
            return False

    def collections(self) -> list[dict[str, Any]]:
        """Return what `GET /v1/collections` says of each."""
        found: list[dict[str, Any]] = self._json("GET", "/v1/collections")["collections"]
        return found

    def ensure_collection(self, name: str, schema: dict[str, Any]) -> bool:
        """Create a collection unless there is one of this name; returns whether it was created."""
        if any(collection["name"] == name for collection in self.collections()):
            return False
        self._json("PUT", f"/v1/collections/{name}", json=schema)
        return True

    def upload(self, collection: str, documents: Iterable[Document]) -> Iterator[tuple[str, int]]:
        """Send documents in batches; yield (job id, number of documents) as each is durably accepted."""
        for batch in _batches(documents):
            answer = self._json(
                "POST",
                f"/v1/collections/{collection}/documents",
                content=b"\n".join(batch),
                headers={"Content-Type": "application/x-ndjson"},
            )
            if answer["rejected"]:
                number, first = len(answer["rejected"]), answer["rejected"][0]
                raise CommandError(f"{number} documents were rejected, the first because {first['detail']}")
            yield answer["job"]["id"], len(batch)

    def job(self, job: str) -> dict[str, Any]:
        """Return how far a write has come."""
        return self._json("GET", f"/v1/jobs/{job}")

    def unfinished_jobs(self, collection: str) -> list[dict[str, Any]]:
        """Return the jobs of a collection that are queued or running, oldest first."""
        newest_first = [
            job
            for state in ("queued", "running")
            for job in self._json("GET", f"/v1/jobs?state={state}")["jobs"]
            if job["collection"] == collection
        ]
        return newest_first[::-1]

    def wait_until_shown(self, collection: str) -> None:
        """Return when the service searches everything that was written to a collection.

        A job is done when its generation is published; the service opens that a moment later.
        """
        while self._json("GET", f"/v1/collections/{collection}")["queued"]:
            time.sleep(SHOWN_POLL_SECONDS)

    def search(self, collection: str, request: dict[str, Any]) -> dict[str, Any]:
        """Return the whole answer to a search request."""
        return self._json("POST", f"/v1/collections/{collection}/search", json=request)

    def back_up(self, collection: str, request: dict[str, Any]) -> dict[str, Any]:
        """Make a backup; returns when all is copied."""
        return self._patient("POST", f"/v1/collections/{collection}/snapshots", json=request)

    def snapshots(self, collection: str, repository: str) -> dict[str, Any]:
        """Return the backups of a collection that a repository has."""
        query = {"repository": repository}
        return self._patient("GET", f"/v1/collections/{collection}/snapshots", params=query)

    def remove_snapshot(self, collection: str, name: str, repository: str) -> None:
        """Remove a backup."""
        query = {"repository": repository}
        self._patient("DELETE", f"/v1/collections/{collection}/snapshots/{name}", params=query)

    def restore(self, collection: str, name: str, request: dict[str, Any]) -> None:
        """Make a collection of a backup; returns when it can be searched."""
        self._patient("POST", f"/v1/collections/{collection}/snapshots/{name}:restore", json=request)

    def _patient(self, method: str, path: str, **content: Any) -> dict[str, Any]:
        """Ask once, for what may take hours: an answer that there is trouble is no reason to begin again."""
        return _answer(self._send(method, path, timeout=None, **content))

    def _json(self, method: str, path: str, **content: Any) -> dict[str, Any]:
        response = self._send(method, path, **content)
        for _ in range(MOST_WAITS):
            if response.status_code not in BUSY:
                break
            time.sleep(float(response.headers.get("Retry-After", 1)))
            response = self._send(method, path, **content)
        return _answer(response)

    def _send(self, method: str, path: str, **content: Any) -> httpx.Response:
        try:
            return self._http.request(method, path, **content)
        except httpx.TransportError as error:
            raise CommandError(
                f"no service answers at {self._http.base_url} ({error}); start one with `winnow serve`"
            ) from error


def _answer(response: httpx.Response) -> dict[str, Any]:
    if response.is_error:
        service = response.url.copy_with(raw_path=b"/")
        raise CommandError(f"{service} answers {response.status_code}: {_detail(response)}")
    answer: dict[str, Any] = response.json() if response.content else {}
    return answer


def _batches(documents: Iterable[Document]) -> Iterator[list[bytes]]:
    batch: list[bytes] = []
    size = 0
    for document in documents:
        line = document.to_json()
        if batch and (len(batch) == BATCH_DOCUMENTS or size + len(line) > BATCH_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(line)
        size += len(line)
    if batch:
        yield batch


def _detail(response: httpx.Response) -> str:
    try:
        return str(response.json()["detail"])
    except (ValueError, KeyError):
        return response.text[:200] or response.reason_phrase
