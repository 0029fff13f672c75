"""An evaluation ranks in-process as the service does over HTTP: same documents, questions and lists."""

import json
import time
from pathlib import Path

import pytest
from rich.progress import Progress
from starlette.testclient import TestClient

from indexer.worker import drain
from service.app import create_app
from service.commands.trial_run import TrialRun
from service.settings import Settings
from tests.nets import WORDS, tiny_encoder, tiny_sparse_encoder

PIPELINES = ["bm25", "dense", "sparse", "hybrid", "fast", "balanced"]
QUERIES = {"q1": "tide moon", "q2": "the cat in the rain", "q3": "sun"}


@pytest.fixture
def corpus(tmp_path: Path) -> list[dict[str, str]]:
    """Twenty short texts, no two of the same words."""
    nouns = WORDS[7:]
    texts = [f"The {a} and the {b}." for a in nouns for b in nouns if a < b][:20]
    documents = [{"id": f"d{number}", "text": text} for number, text in enumerate(texts)]
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "corpus.jsonl").write_text("\n".join(json.dumps(document) for document in documents))
    return documents


def test_hit_lists_are_those_of_the_service(
    corpus: list[dict[str, str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("WINNOW_ENCODER", str(tiny_encoder(tmp_path / "net")))
    monkeypatch.setenv("WINNOW_SPARSE_ENCODER", str(tiny_sparse_encoder(tmp_path / "sparse")))
    run = TrialRun(tmp_path / "run", tmp_path / "cache", PIPELINES, None, Progress(disable=True))
    run.index(tmp_path / "set", {})
    answers = run.answers(QUERIES)

    settings = Settings(data_dir=tmp_path / "service", worker="external")
    with TestClient(create_app(settings)) as client:
        client.put("/v1/collections/set", json={})
        client.post("/v1/collections/set/documents", json=corpus)
        drain(settings.data_dir, "set")
        while client.get("/v1/collections/set").json()["queued"]:
            time.sleep(0.01)  # until the service has opened what was published
        for pipeline in PIPELINES:
            for query, text in QUERIES.items():
                body = {"query": text, "pipeline": pipeline, "top_k": 1000, "timeout_ms": 60_000}
                hits = client.post("/v1/collections/set/search", json=body).json()["hits"]
                assert [hit["id"] for hit in hits] == answers[pipeline][query].ids
