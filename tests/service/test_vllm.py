"""The wire of vLLM's scores. Texts score by the words that they share with the question."""

import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from service.settings import Limits
from tests.running import Service, running

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def scoring(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Service]:
    directory, limits = tmp_path_factory.mktemp("vllm"), Limits(inputs=4)
    async with running(directory, cross_encoder="words", limits=limits, models={"bge": "late"}) as service:
        yield service


async def ask(service: Service, status: int = 200, **body: Any) -> Any:
    return await service.ask("POST", "/score", status, json=body)


async def scores(service: Service, **body: Any) -> list[float]:
    data = (await ask(service, **body))["data"]
    assert [each["index"] for each in data] == list(range(len(data)))
    return pytest.approx([each["score"] for each in data], abs=0.01)


async def test_an_answer_has_these_fields_and_no_others(scoring: Service):
    body = {"model": "bge", "text_1": "moon", "text_2": "moon", "priority": 0}
    response = await scoring.client.post("/score", json=body)
    answer = response.json()
    assert answer.pop("usage") == {"prompt_tokens": 2, "total_tokens": 2, "completion_tokens": 0}
    assert abs(answer.pop("created") - time.time()) < 60
    assert answer == {
        "id": "score-" + response.headers["x-request-id"],
        "object": "list",
        "model": "bge",
        "data": [{"index": 0, "object": "score", "score": pytest.approx(1.0, abs=0.01)}],
    }


async def test_one_question_meets_every_text(scoring: Service):
    found = await scores(scoring, queries="moon tide", documents=["cat", "moon tide", "moon dog"])
    assert found == [0.0, 1.0, 0.5]  # means of cosines


async def test_as_many_questions_as_texts_meet_in_pairs(scoring: Service):
    found = await scores(scoring, text_1=["moon", "cat", "moon"], text_2=["moon", "moon", "sun"])
    assert found == [1.0, 0.0, 0.0]


async def test_a_pair_scores_as_it_does_alone(scoring: Service):
    pairs = [("moon tide", "moon"), ("sun", "rain"), ("moon tide", "tide moon cat")]
    together = await ask(scoring, text_1=[q for q, _ in pairs], text_2=[text for _, text in pairs])
    alone = [(await ask(scoring, text_1=q, text_2=text))["data"][0]["score"] for q, text in pairs]
    assert [each["score"] for each in together["data"]] == alone


async def test_a_classifier_scores_from_0_to_1_unless_logits_are_asked_for(scoring: Service):
    body = {"model": "cross", "text_1": "moon tide", "text_2": ["moon", "sun"]}
    assert await scores(scoring, **body) == [0.731, 0.5]  # 1 / (1 + exp(-1)), 1 / (1 + exp(-0))
    assert await scores(scoring, use_activation=False, **body) == [1.0, 0.0]


async def test_long_texts_are_refused_unless_they_are_to_be_cut(scoring: Service):
    long = {"text_1": "moon", "text_2": "sun " * 300 + "moon"}
    error = (await ask(scoring, 400, **long))["error"]
    assert "text 0 has 301 tokens, and the model reads 256 of them" in error["message"]
    assert (error["code"], error["param"]) == ("text_too_long", "text_2")
    assert await scores(scoring, truncate_prompt_tokens=-1, **long) == [0.0]
    assert await scores(scoring, truncate_prompt_tokens=1, text_1="moon", text_2="sun moon") == [0.0]
    assert await scores(scoring, truncate_prompt_tokens=2, text_1="moon", text_2="sun moon") == [1.0]


@pytest.mark.parametrize(
    ("body", "param", "message"),
    [
        ({"text_1": "moon"}, None, "give text_1 and text_2, or queries and documents"),
        ({"text_1": "moon", "documents": "moon"}, None, "give text_1 and text_2, or queries and documents"),
        ({"text_1": "a", "text_2": "b", "queries": "c"}, None, "none of the other two"),
        ({"text_1": ["a", "b"], "text_2": ["c"]}, None, "2 questions for 1 texts"),
        ({"text_1": ["a", "b"], "text_2": ["c", "d", "e"]}, None, "2 questions for 3 texts"),
        ({"text_1": [], "text_2": "b"}, "text_1", "one at least"),
        ({"text_1": "a", "text_2": [1]}, "text_2", "a list of texts"),
        ({"text_1": "a", "text_2": ["b"] * 5}, "text_2", "the limit 'inputs' is 4"),
        ({"text_1": "a", "text_2": "b", "truncate_prompt_tokens": 0}, "truncate_prompt_tokens", "greater"),
    ],
)
async def test_what_is_wrong_is_said_as_openai_says_it(
    scoring: Service, body: dict[str, Any], param: str | None, message: str
):
    error = (await ask(scoring, 400, **body))["error"]
    assert list(error) == ["message", "type", "param", "code"]
    assert (error["type"], error["param"]) == ("invalid_request_error", param)
    assert message in error["message"]


@pytest.mark.parametrize(
    ("body", "param", "message"),
    [
        ({"queries": "sun " * 300, "documents": "moon"}, "queries", "the question has 300 tokens"),
        ({"queries": ["a", "b", "c"], "documents": ["d", "sun " * 300, "e"]}, "documents", "text 1 has 300"),
        ({"text_1": ["a", "sun " * 300, "a"], "text_2": ["d", "e", "f"]}, "text_1", "question 1 has 300"),
        ({"text_1": "a", "text_2": ["b", "c" * 2_000_000]}, "text_2", "text 1 in bytes is 2000000"),
        ({"text_1": "a" * 2_000_000, "text_2": "b"}, "text_1", "question 0 in bytes is 2000000"),
    ],
)
async def test_which_text_is_too_long_is_said(
    scoring: Service, body: dict[str, Any], param: str, message: str
):
    error = (await ask(scoring, 400, **body))["error"]
    assert message in error["message"]
    assert error["param"] == param


async def test_a_model_that_is_not_there(scoring: Service):
    error = (await ask(scoring, 404, model="gpt", text_1="a", text_2="b"))["error"]
    assert (error["type"], error["code"]) == ("invalid_request_error", "model_not_found")
