"""The wire of Cohere's reranker, by its own client. Texts score by the words that they share with it."""

from collections.abc import Iterator

import cohere
import pytest
from cohere.core import ApiError

from service.settings import Limits
from tests.running import Service
from tests.serving import serving

DOCUMENTS = ["cat dog", "moon tide", "moon dog"]


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[cohere.ClientV2]:
    directory = tmp_path_factory.mktemp("cohere")
    settings = {"models": {"rerank-v3.5": "late"}, "limits": Limits(rerank=4), "api_key": "sesame"}
    with serving(directory, **settings) as (url, _):
        yield cohere.ClientV2("sesame", base_url=url)


def test_documents_come_back_best_first(client: cohere.ClientV2):
    answer = client.rerank(model="rerank-v3.5", query="moon tide", documents=DOCUMENTS)
    assert [each.index for each in answer.results] == [1, 2, 0]
    scores = [each.relevance_score for each in answer.results]
    assert scores == pytest.approx([1.0, 0.75, 0.5], abs=0.01)  # (1 + the mean of cosines 1, 1/2, 0) / 2
    assert answer.id
    assert answer.meta.api_version.version == "2"


def test_only_the_best(client: cohere.ClientV2):
    answer = client.rerank(model="default", query="moon tide", documents=DOCUMENTS, top_n=1)
    assert [each.index for each in answer.results] == [1]


def test_so_many_tokens_of_a_document_are_read(client: cohere.ClientV2):
    answer = client.rerank(
        model="rerank-v3.5", query="moon tide", documents=["cat moon tide", "tide cat"], max_tokens_per_doc=1
    )
    assert [each.index for each in answer.results] == [1, 0]
    assert [each.relevance_score for each in answer.results] == pytest.approx([0.75, 0.5], abs=0.01)


@pytest.mark.parametrize(
    ("changed", "status", "message"),
    [
        ({"model": "gpt"}, 404, "there is no model 'gpt'"),
        ({"documents": []}, 400, "documents"),
        ({"query": ""}, 400, "query"),
        ({"top_n": 0}, 400, "top_n"),
        ({"documents": ["moon"] * 5}, 400, "limit 'rerank' is 4"),
    ],
)
def test_errors_are_those_of_the_client(client: cohere.ClientV2, changed: dict, status: int, message: str):
    asked = {"model": "rerank-v3.5", "query": "moon", "documents": DOCUMENTS, **changed}
    with pytest.raises(ApiError) as error:
        client.rerank(**asked)
    assert error.value.status_code == status
    assert list(error.value.body) == ["message"]
    assert message in error.value.body["message"]


def test_a_wrong_key_is_an_error_of_the_client_too(client: cohere.ClientV2):
    url = client._client_wrapper.get_base_url()
    with pytest.raises(cohere.UnauthorizedError) as error:
        cohere.ClientV2("open", base_url=url).rerank(model="late", query="moon", documents=DOCUMENTS)
    assert list(error.value.body) == ["message"]


async def test_an_answer_has_these_fields_and_no_others(service: Service):
    body = {"query": "moon", "documents": ["moon", "cat"], "return_documents": True}
    response = await service.client.post("/v2/rerank", json=body)
    assert response.json() == {
        "id": response.headers["x-request-id"],
        "results": [
            {"index": 0, "relevance_score": pytest.approx(1.0, abs=0.01)},
            {"index": 1, "relevance_score": pytest.approx(0.5, abs=0.01)},
        ],
        "meta": {"api_version": {"version": "2"}},
    }
