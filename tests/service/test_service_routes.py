"""Probes, metrics, limits, the API key, and the errors of the framework itself."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from models.load import WeightsMissing
from service.app import create_app
from service.settings import Limits, Settings
from tests.nets import CountingNet, WordOverlapEncoder, loading, word_overlap
from tests.running import Service, running


async def ready(service: Service) -> None:
    async with asyncio.timeout(60):
        while service.state.warmup.pending:
            await asyncio.sleep(0.01)


def missing(role: str, name: str) -> Any:
    raise WeightsMissing(f"{name} is not installed: pip install weights")


async def test_it_is_alive_at_once_and_ready_when_warm(tmp_path: Path):
    loaded = asyncio.get_running_loop().create_future()

    def load(role: str, name: str) -> Any:
        load = asyncio.run_coroutine_threadsafe(asyncio.wait_for(asyncio.shield(loaded), 10), loop).result()
        return load(role, name)

    loop = asyncio.get_running_loop()
    async with running(tmp_path, load=load) as service:
        assert (await service.ask("GET", "/livez"))["status"] == "alive"
        problem = await service.ask("GET", "/readyz", 503)
        assert "loading encoders" in problem["detail"]
        loaded.set_result(word_overlap)
        await ready(service)
        for path in ("/readyz", "/health"):
            answer = await service.ask("GET", path)
            assert (answer["status"], answer["reasons"]) == ("ready", [])


async def test_without_weights_it_is_ready_and_says_what_is_missing(tmp_path: Path):
    async with running(tmp_path, load=missing) as service:
        await ready(service)
        health = await service.ask("GET", "/readyz")
        assert health["status"] == "degraded"
        assert "pip install weights" in health["reasons"][0]


async def test_weights_that_break_while_loading_are_like_missing_ones(tmp_path: Path):
    def broken(role: str, name: str) -> Any:
        raise KeyError("embeddings.weight")

    async with running(tmp_path, load=broken) as service:
        await ready(service)
        assert "embeddings.weight" in (await service.ask("GET", "/readyz"))["reasons"][0]


async def test_without_weights_words_are_found_and_vectors_are_said_to_be_missing(tmp_path: Path):
    async with running(tmp_path) as service:
        await service.make()
        await service.put([{"id": "a", "text": "moon"}])
    async with running(tmp_path, load=missing) as service:
        answer = await service.search("moon", pipeline="hybrid")
        assert [hit["id"] for hit in answer["hits"]] == ["a"]
        assert answer["degraded"] == ["dense"]
        assert "pip install weights" in answer["stages"][0]["reason"]
        all_three = await service.search("moon", pipeline="balanced")
        assert (all_three["degraded"], len(all_three["hits"])) == (["sparse", "fast_forward"], 1)
        for pipeline in ("dense", "sparse"):
            problem = await service.search("moon", status=503, pipeline=pipeline)
            assert problem["code"] == "encoder_unavailable"
            assert "pip install weights" in problem["detail"]


class Cramped(CountingNet):
    """Has memory for two texts."""

    def forward(self, tokens: Any) -> Any:
        rows = super().forward(tokens)
        if len(tokens) > 2:
            raise MemoryError("no room")
        return rows


async def test_a_forward_without_room_is_run_in_halves_and_nobody_notices(tmp_path: Path):
    net, texts = Cramped(), ["moon", "sea", "tide", "sun"]
    async with running(tmp_path, load=loading(dense=net), batch_tokens=1000) as service:
        await ready(service)
        net.batches.clear()
        answer = await service.ask("POST", "/v1/embeddings", json={"input": texts})
        assert [len(batch) for batch in net.batches] == [4, 2, 2]
        vectors = [each["embedding"] for each in answer["data"]]
        np.testing.assert_allclose(vectors, WordOverlapEncoder().encode(texts), atol=1e-6)
        assert (await service.ask("GET", "/readyz"))["status"] == "ready"


class OtherWeights(WordOverlapEncoder):
    fingerprint = "other"


async def test_vectors_of_other_weights_are_not_compared(tmp_path: Path):
    async with running(tmp_path) as service:
        await service.make()
        await service.put([{"id": "a", "text": "moon"}])
    async with running(tmp_path, load=loading(dense=OtherWeights())) as service:
        problem = await service.search("moon", status=503, pipeline="dense")
        assert "encoded with word-overlap-64" in problem["detail"]


async def test_weights_that_were_installed_meanwhile_are_found(tmp_path: Path):
    answers: list[Callable[[str, str], Any]] = [missing, missing]

    def load(role: str, name: str) -> Any:
        return answers.pop(0)(role, name) if role == "dense" and answers else word_overlap(role, name)

    async with running(tmp_path, load=load) as service:
        await ready(service)
        await service.make()
        await service.put([{"id": "a", "text": "moon"}])
        await service.search("moon", status=503, pipeline="dense")
        assert await service.ids("moon", pipeline="dense") == ["a"]
        assert (await service.ask("GET", "/readyz"))["status"] == "ready"


async def test_metrics_count_requests_stages_and_forwards(service: Service):
    await service.make()
    await service.put([{"id": "a", "text": "moon"}])
    await service.search("moon", pipeline="hybrid")
    await service.client.get("/no/such/route")
    await service.state.lookout.look()
    text = (await service.client.get("/metrics")).text
    for line in (
        'winnow_requests_total{method="POST",route="/v1/collections/{name}/search",status="200"} 1.0',
        'winnow_requests_total{method="GET",route="none",status="404"} 1.0',
        'winnow_pipeline_seconds_count{outcome="complete",pipeline="hybrid"} 1.0',
        'winnow_stage_seconds_count{stage="dense",status="ran"} 1.0',
        'winnow_stage_in_hits_total{stage="group"} 1.0',
        'winnow_stage_out_hits_total{stage="dense"} 1.0',
        'winnow_stage_seconds_count{stage="group",status="ran"} 1.0',
        'winnow_generation{collection="c"} 1.0',
        'winnow_generation_up{collection="c"} 1.0',
        'winnow_documents{collection="c"} 1.0',
        'winnow_check_ok{check="indexer"} 1.0',
        "winnow_worker_wait_seconds_count ",
        "process_resident_memory_bytes ",
        'winnow_build_info{python="3.',
        'winnow_queued_operations{collection="c"} 0.0',
        "winnow_net_queued_tokens{",
        "winnow_net_batch_texts_count{",
    ):
        assert line in text, line


async def test_two_applications_do_not_share_their_metrics(tmp_path: Path):
    async with running(tmp_path / "one") as one, running(tmp_path / "two") as two:
        await one.ask("GET", "/livez")
        assert "/livez" in (await one.client.get("/metrics")).text
        assert "/livez" not in (await two.client.get("/metrics")).text


async def test_limits_are_shown(service: Service):
    shown = await service.ask("GET", "/v1/limits")
    assert shown["limits"] == Limits().model_dump()
    assert "en" in shown["languages"]
    assert [stage["stage"] for stage in shown["pipelines"]["hybrid"]] == ["fuse", "group"]


async def test_errors_of_the_framework_are_problems_too(service: Service):
    response = await service.client.get("/nowhere")
    assert response.headers["content-type"] == "application/problem+json"
    problem = response.json()
    assert (problem["status"], problem["code"], problem["title"]) == (404, "no_such_route", "Not Found")
    assert problem["request_id"] == response.headers["x-request-id"]
    response = await service.client.patch("/livez")
    assert (response.status_code, response.json()["code"]) == (405, "method_not_allowed")
    assert response.headers["allow"] == "GET"


async def test_a_parameter_that_is_not_known_is_refused(service: Service):
    await service.make()
    path = "/v1/collections/c/documents"
    problem = await service.ask(
        "POST", path, 422, json={"id": "a", "text": ""}, params={"wiat": "searchable"}
    )
    assert "no query parameter 'wiat'; this route knows timeout_ms, wait" in problem["detail"]
    assert "knows none" in (await service.ask("GET", "/v1/limits", 422, params={"": ""}))["detail"]


async def test_an_unforeseen_error_is_a_problem_with_a_request_id(
    service: Service, monkeypatch: pytest.MonkeyPatch
):
    async def broken(*_: Any) -> Any:
        raise ZeroDivisionError

    await service.make()
    monkeypatch.setattr(service.state.answers, "search", broken)
    headers = {"X-Request-Id": "trace-1"}
    response = await service.client.post("/v1/collections/c/search", json={"query": "moon"}, headers=headers)
    assert response.status_code == 500
    assert response.headers["content-type"] == "application/problem+json"
    assert response.json()["request_id"] == response.headers["x-request-id"] == "trace-1"


async def test_with_a_key_only_probes_are_open(tmp_path: Path):
    async with running(tmp_path, api_key="sesame") as service:
        for path in ("/livez", "/health"):
            assert (await service.client.get(path)).status_code != 401
        for path in ("/", "/metrics", "/openapi.json", "/v1/limits", "/v1/collections", "/nowhere"):
            problem = await service.ask("GET", path, 401)
            assert "Authorization: Bearer" in problem["detail"]
        service.client.headers["Authorization"] = "Bearer sesame"
        assert (await service.ask("GET", "/v1/collections")) == {"collections": []}
        openapi = await service.ask("GET", "/openapi.json")
        assert openapi["paths"]["/v1/collections"]["get"]["security"]
        assert "401" in openapi["paths"]["/v1/collections"]["get"]["responses"]


def test_making_an_application_touches_nothing(tmp_path: Path):
    create_app(Settings(data_dir=tmp_path / "data"))
    assert not (tmp_path / "data").exists()
