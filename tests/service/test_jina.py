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


async def test_documents_may_be_objects_and_equal_ones_keep_their_order(service: Service):
    answer = await ask(service, documents=[{"text": "dog", "id": 7}, "moon tide", {"text": "cat"}])
    assert [each["index"] for each in answer["results"]] == [1, 0, 2]
    assert answer["results"][1]["document"] == {"text": "dog"}


async def test_without_a_model_the_settings_choose_it(service: Service):
    for model in (None, "default"):
        answer = await ask(service, model=model)
        assert answer["model"] == model or "late"
        assert answer["results"] == (await ask(service))["results"]


async def test_what_a_pair_scores_does_not_depend_on_the_others(service: Service):
    together = {each["index"]: each["relevance_score"] for each in (await ask(service))["results"]}
    for place, text in enumerate(DOCUMENTS):
        (alone,) = (await ask(service, documents=[text]))["results"]
        assert alone["relevance_score"] == together[place]


@pytest.mark.parametrize("model", ["dense", "sparse", "late"])
async def test_every_model_orders_by_shared_words_from_0_to_1(service: Service, model: str):
    results = (await ask(service, model=model))["results"]
    assert [each["index"] for each in results] == [1, 2, 0]
    assert all(0 <= each["relevance_score"] <= 1 for each in results)


@pytest.mark.parametrize(
    ("changed", "status", "detail"),
    [
        ({"query": ""}, 422, "query: "),
        ({"documents": []}, 422, "documents: "),
        ({"documents": [{"title": "moon"}]}, 422, "text: Field required"),
        ({"documents": ["moon"] * 1001}, 422, "the limit 'rerank' is 1000"),
        ({"query": "moon" * 2049}, 422, "the limit 'query_bytes' is 8192"),
        ({"top_n": 0}, 422, "top_n: "),
        ({"top_n": "3"}, 422, "top_n: "),
        ({"return_documents": "no"}, 422, "return_documents: "),
        ({"model": "gpt"}, 404, "there is no model 'gpt'"),
        ({"model": "cross"}, 404, "WINNOW_CROSS_ENCODER"),
    ],
)
async def test_errors_have_a_detail_and_nothing_else(
    service: Service, changed: dict[str, Any], status: int, detail: str
):
    error = await ask(service, status, **changed)
    assert list(error) == ["detail"]
    assert detail in error["detail"]


async def test_what_is_no_json_is_said_in_the_same_shape(service: Service):
    headers = {"Content-Type": "application/json"}
    error = await service.ask("POST", "/v1/rerank", 400, content=b"{", headers=headers)
    assert list(error) == ["detail"]
    assert "not valid JSON" in error["detail"]
