"""Jobs as clients see them: named `COLLECTION.KEY`, so that a name alone says whose log to ask."""

import orjson

from indexer.queue.contract import DeadLetter, Job
from service.catalog import Catalog, Collection
from service.errors import NotFoundError
from service.schema import DeadLetterView, JobView


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
