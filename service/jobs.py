"""Jobs as clients see them: named `COLLECTION.KEY`, so that a name alone says whose log to ask."""

import asyncio
import time

import orjson

from indexer.queue.contract import DeadLetter, Job
from service.catalog import Catalog, Collection
from service.errors import NotFoundError
from service.schema.jobs import DeadLetterView, JobView

SETTLE_SECONDS = 1.0


async def settled(collection: Collection, key: str) -> Job | None:
    """A job of which everything is published, once its counts say so: they follow a moment after."""
    until = time.monotonic() + SETTLE_SECONDS
    job = await asyncio.to_thread(collection.log.job, key)
    while job is not None and job.queued and time.monotonic() < until:
        await asyncio.sleep(0.005)
        job = await asyncio.to_thread(collection.log.job, key)
    return job


def view(collection: str, job: Job) -> JobView:
    """A job of a collection's log."""
    return {
        "id": f"{collection}.{job.id}",
        "collection": collection,
        "state": job.state,
        "total": job.total,
        "queued": job.queued,
        "encoded": job.encoded,
        "published": job.published,
        "failed": job.failed,
        "created": job.created,
        "rate": job.rate,
        "error": job.error,
    }


def letter_view(letter: DeadLetter) -> DeadLetterView:
    """A dead letter with what it held: a document, an id or a filter."""
    payload = letter.operation.payload
    return {
        "position": letter.position,
        "kind": letter.operation.kind,
        "payload": payload.decode() if letter.operation.kind == "delete" else orjson.loads(payload),
        "error": letter.error,
        "tries": letter.tries,
        "time": letter.time,
    }


def find(catalog: Catalog, job_id: str) -> tuple[Collection, str, Job]:
    """The collection, key and state of a job; blocks on its log. NotFoundError."""
    name, _, key = job_id.partition(".")
    collection = catalog.find(name)
    job = None if collection is None else collection.log.job(key)
    if collection is None or job is None:
        raise NotFoundError(
            f"there is no job {job_id[:200]!r}: its collection was dropped, or it was finished more than "
            "a week ago"
        )
    return collection, key, job
