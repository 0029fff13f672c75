"""How far writes have come, and what could not be indexed."""

import asyncio
from collections.abc import AsyncIterator
from typing import Annotated, Any, Literal

import orjson
from fastapi import APIRouter, Path
from sse_starlette.sse import EventSourceResponse
from starlette.responses import Response

from indexer.queue.contract import Job
from service.catalog import Collection
from service.errors import NotFoundError, UnavailableError
from service.jobs import find, letter_view, view
from service.schema.jobs import JobDetail, JobList, JobView
from service.state import Here, json_response, problems
from service.strict_json import StrictRoute

router = APIRouter(prefix="/v1/jobs", tags=["jobs"], route_class=StrictRoute)

MOST_JOBS = 1000
MOST_FAILURES = 100
POLL_SECONDS = 0.2

JobId = Annotated[str, Path(description="As a write gave it: COLLECTION.KEY.")]
ERRORS = problems(NotFoundError, UnavailableError)


@router.get("", response_model=JobList, responses=problems(UnavailableError), summary="List jobs")
async def list_jobs(
    here: Here, state: Literal["queued", "running", "done", "failed"] | None = None
) -> Response:
    """Jobs of all collections, newest first; `state=failed` lists those with dead letters."""
    jobs: list[JobView] = []
    for collection in here.catalog:
        jobs += [view(collection.name, job) for job in await asyncio.to_thread(collection.log.jobs, state)]
    jobs.sort(key=lambda job: -job["created"])
    return json_response({"jobs": jobs[:MOST_JOBS]})


@router.get("/{job_id}", response_model=JobDetail, responses=ERRORS, summary="Show a job")
async def get_job(job_id: JobId, here: Here) -> Response:
    """How many operations of a write are done, and the first hundred that were given up."""
    collection, key, job = await asyncio.to_thread(find, here.catalog, job_id)
    letters = await asyncio.to_thread(collection.log.dead_letters, key)
    failures = [letter_view(letter) for letter in letters[:MOST_FAILURES]]
    return json_response({**view(collection.name, job), "failures": failures})


@router.get(
    "/{job_id}/events",
    response_class=EventSourceResponse,
    responses={200: {"content": {"text/event-stream": {}}, "description": "One event a change"}, **ERRORS},
    summary="Follow a job",
)
async def follow_job(job_id: JobId, here: Here) -> EventSourceResponse:
    """Send `progress` at every change, and at the end `done` or `failed`; the data is the job."""
    collection, key, job = await asyncio.to_thread(find, here.catalog, job_id)
    return EventSourceResponse(_events(collection, key, job))


@router.post(
    "/{job_id}:retry", response_model=JobView, status_code=202, responses=ERRORS, summary="Retry a job"
)
async def retry_job(job_id: JobId, here: Here) -> Response:
    """Queue everything again that was given up."""
    collection, key, _ = await asyncio.to_thread(find, here.catalog, job_id)
    await asyncio.to_thread(_retry, collection, key)
    *_, job = await asyncio.to_thread(find, here.catalog, job_id)
    return json_response(view(collection.name, job), 202)


@router.delete("/{job_id}/failures", response_model=JobView, responses=ERRORS, summary="Drop failures")
async def drop_failures(job_id: JobId, here: Here) -> Response:
    """Forget what was given up; the job goes on counting it as failed."""
    collection, key, _ = await asyncio.to_thread(find, here.catalog, job_id)
    await asyncio.to_thread(_drop, collection, key)
    *_, job = await asyncio.to_thread(find, here.catalog, job_id)
    return json_response(view(collection.name, job))


def _retry(collection: Collection, key: str) -> None:
    collection.log.retry([letter.position for letter in collection.log.dead_letters(key)])


def _drop(collection: Collection, key: str) -> None:
    collection.log.drop([letter.position for letter in collection.log.dead_letters(key)])


async def _events(collection: Collection, key: str, first: Job) -> AsyncIterator[dict[str, Any]]:
    job: Job | None = first
    shown = None
    while job is not None:
        if job != shown:
            name = job.state if job.state in ("done", "failed") else "progress"
            yield {"event": name, "data": orjson.dumps(view(collection.name, job)).decode()}
            shown = job
        if job.state in ("done", "failed"):
            return
        await asyncio.sleep(POLL_SECONDS)
        job = await asyncio.to_thread(collection.log.job, key)
