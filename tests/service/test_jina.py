"""The wire of Jina's rerankers. Texts score by the words that they share with the question."""

from typing import Any

import pytest

from tests.running import Service

DOCUMENTS = ["cat dog", "moon tide", "moon dog"]


async def ask(service: Service, status: int = 200, **changed: Any) -> Any:
    body = {"query": "moon tide", "documents": DOCUMENTS, "model": "late", **changed}
    return await service.ask("POST", "/v1/rerank", status, json=body)


async def test_documents_come_back_best_first(service: Service):
    answer = await ask(service)
    assert list(answer) == ["model", "usage", "results"]
    assert answer["model"] == "late"
    assert [each["index"] for each in answer["results"]] == [1, 2, 0]
    scores = [each["relevance_score"] for each in answer["results"]]
    assert scores == pytest.approx([1.0, 0.75, 0.5], abs=0.01)  # (1 + the mean of cosines 1, 1/2, 0) / 2
    assert [each["document"] for each in answer["results"]] == [
        {"text": "moon tide"},
        {"text": "moon dog"},
        {"text": "cat dog"},
    ]
    assert answer["usage"]["total_tokens"] == answer["usage"]["prompt_tokens"] > 0


async def test_only_the_best_and_without_their_texts(service: Service):
    answer = await ask(service, top_n=1, return_documents=False)
    assert [set(each) for each in answer["results"]] == [{"index", "relevance_score"}]
    assert answer["results"][0]["index"] == 1
    assert len((await ask(service, top_n=99))["results"]) == 3
    assert len((await ask(service, top_n=None))["results"]) == 3
