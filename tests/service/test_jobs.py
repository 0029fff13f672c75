"""Jobs over HTTP. Operations are given up through the log itself, as the worker does it."""

import asyncio
from typing import Any

import orjson
import pytest

from tests.running import Service


async def given_up(service: Service) -> str:
    """A job of two documents of which one was indexed and one given up."""
    await service.make()
    documents = [{"id": "good", "text": "moon"}, {"id": "bad", "text": "sea"}]
    answer = await service.ask("POST", "/v1/collections/c/documents", 202, json=documents)
    log = service.state.catalog.get("c").log
    await asyncio.to_thread(log.bury, log.last_position(), "it would not be encoded", 3)
    await service.index()
    return str(answer["job"]["id"])


async def test_a_job_with_failures_shows_what_failed_and_why(service: Service):
    job = await given_up(service)
    shown = await service.ask("GET", f"/v1/jobs/{job}")
    assert (shown["state"], shown["total"], shown["published"], shown["failed"]) == ("failed", 2, 1, 1)
    (failure,) = shown["failures"]
    assert (failure["kind"], failure["error"], failure["tries"]) == ("upsert", "it would not be encoded", 3)
    assert failure["payload"]["id"] == "bad"


async def test_failed_jobs_can_be_listed(service: Service):
    job = await given_up(service)
    await service.put([{"id": "other", "text": "rain"}])
    assert len((await service.ask("GET", "/v1/jobs"))["jobs"]) == 2
    failed = await service.ask("GET", "/v1/jobs", params={"state": "failed"})
    assert [each["id"] for each in failed["jobs"]] == [job]
    await service.ask("GET", "/v1/jobs", 422, params={"state": "odd"})


async def test_what_failed_can_be_tried_again(service: Service):
    job = await given_up(service)
    again = await service.ask("POST", f"/v1/jobs/{job}:retry", 202)
    assert (again["state"], again["queued"], again["failed"]) == ("running", 1, 0)
    await service.index()
    shown = await service.ask("GET", f"/v1/jobs/{job}")
    assert (shown["state"], shown["failures"]) == ("done", [])
    assert set(await service.ids("sea moon")) == {"good", "bad"}


async def test_what_failed_can_be_dropped(service: Service):
    job = await given_up(service)
    dropped = await service.ask("DELETE", f"/v1/jobs/{job}/failures")
    assert dropped["failed"] == 1
    assert (await service.ask("GET", f"/v1/jobs/{job}"))["failures"] == []


@pytest.mark.parametrize("job", ["c.unknown", "nowhere.x", "x", "c."])
async def test_an_unknown_job_is_not_found(service: Service, job: str):
    await service.make()
    for method, path in (("GET", ""), ("GET", "/events"), ("POST", ":retry"), ("DELETE", "/failures")):
        await service.ask(method, f"/v1/jobs/{job}{path}", 404)


def events(text: str) -> list[tuple[str, dict[str, Any]]]:
    found = []
    for block in text.replace("\r\n", "\n").strip().split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.split("\n") if ": " in line)
        if "event" in fields:
            found.append((fields["event"], orjson.loads(fields["data"])))
    return found


async def test_progress_can_be_followed_to_the_end(service: Service):
    await service.make()
    answer = await service.ask("POST", "/v1/collections/c/documents", 202, json={"id": "a", "text": "moon"})
    following = asyncio.create_task(service.client.get(f"/v1/jobs/{answer['job']['id']}/events"))
    await asyncio.sleep(0.1)
    await service.index()
    response = await following
    assert response.headers["content-type"].startswith("text/event-stream")
    seen = events(response.text)
    names, jobs = [name for name, _ in seen], [job for _, job in seen]
    assert (names[0], names[-1]) == ("progress", "done")
    assert (jobs[0]["published"], jobs[-1]["published"]) == (0, 1)


async def test_the_progress_of_a_finished_job_is_one_event(service: Service):
    job = await given_up(service)
    response = await service.client.get(f"/v1/jobs/{job}/events")
    assert [name for name, _ in events(response.text)] == ["failed"]
