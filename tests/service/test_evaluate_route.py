import time
from pathlib import Path
from typing import Any

import pytest

from tests.nets import WordOverlapEncoder, loading
from tests.running import Service, running

# Each document answers the query of its letter.
DOCUMENTS = [{"id": "a", "text": "moon"}, {"id": "b", "text": "sea water"}, {"id": "c", "text": "cat"}]
JUDGED = {
    "queries": {"q1": "moon", "q2": "sea", "unjudged": "cat"},
    "qrels": {"q1": {"a": 1}, "q2": {"b": 1, "c": 0}},
}
PATH = "/v1/collections/c/evaluate"


async def test_pipelines_are_measured_side_by_side(service: Service):
    await service.make()
    await service.put(DOCUMENTS)
    report = await service.ask("POST", PATH, json=JUDGED)
    assert (report["generation"], report["queries"]) == (1, 2)
    assert list(report["pipelines"]) == ["bm25", "dense", "sparse", "hybrid", "fast", "balanced"]
    bm25, hybrid = report["pipelines"]["bm25"], report["pipelines"]["hybrid"]
    assert bm25["measures"] == {"nDCG@10": 1.0, "MRR@10": 1.0, "Recall@100": 1.0, "MAP": 1.0}
    assert bm25["p_values"] is None
    assert hybrid["p_values"]["nDCG@10"] == 1.0
    assert hybrid["degraded"] == 0
    assert set(hybrid["stages"]) == {"fuse", "fuse/bm25", "fuse/dense", "group"}
    assert hybrid["latency"]["p95_ms"] >= hybrid["latency"]["p50_ms"] > 0


async def test_pipelines_can_be_chosen_and_spelled_out(service: Service):
    await service.make(components=["bm25"])
    await service.put(DOCUMENTS)
    assert list((await service.ask("POST", PATH, json=JUDGED))["pipelines"]) == ["bm25"]
    chosen = {"named": "bm25", "short": [{"stage": "bm25", "k": 1}]}
    report = await service.ask("POST", PATH, json={**JUDGED, "pipelines": chosen})
    assert list(report["pipelines"]) == ["named", "short"]


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"qrels": {"q9": {"a": 1}}}, "qrels judge 'q9', which is not among the queries"),
        ({"qrels": {}}, "qrels: "),
        ({"queries": {str(n): "x" for n in range(1001)}}, "the limit 'queries' is 1000"),
        ({"queries": {"q1": "x" * 9000, "q2": "x"}}, "the limit 'query_bytes' is 8192"),
        ({"pipelines": {str(n): "bm25" for n in range(9)}}, "the limit 'pipelines' is 8"),
        ({"pipelines": {"x": "best"}}, "there is no pipeline 'best'"),
        ({"pipelines": {"x": [{"stage": "bm25", "k": 10**6}]}}, "the limit 'candidates'"),
        ({"qrels": {"q1": {"a": "high"}}}, "qrels.q1.a: Input should be a valid integer"),
    ],
)
async def test_what_cannot_be_measured_is_refused(service: Service, change: dict[str, Any], sentence: str):
    await service.make()
    problem = await service.ask("POST", PATH, 422, json={**JUDGED, **change})
    assert sentence in problem["detail"]


async def test_an_answer_that_came_too_late_counts_nothing_and_is_said(tmp_path: Path):
    async with running(tmp_path, load=loading(dense=Slow())) as service:
        await service.make()
        await service.put(DOCUMENTS)
        body = {**JUDGED, "pipelines": {"dense": "dense"}, "timeout_ms": 20}
        dense = (await service.ask("POST", PATH, json=body))["pipelines"]["dense"]
        assert (dense["measures"]["MAP"], dense["degraded"]) == (0.0, 2)


class Slow(WordOverlapEncoder):
    def forward(self, tokens: Any) -> Any:
        time.sleep(0.1)
        return super().forward(tokens)
