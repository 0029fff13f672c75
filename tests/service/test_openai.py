"""The wire of OpenAI's embeddings, by its own clients. Vectors are of the words that texts share."""

import asyncio
import base64
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import openai
import pytest

from models.roles import loader
from service.settings import Limits
from tests.nets import CountingNet, WordOverlapEncoder, tiny_encoder, word_overlap
from tests.running import Service, running
from tests.service.full_queue import SETTINGS, full
from tests.serving import serving

NET = WordOverlapEncoder()
LONG = " ".join(f"w{number}" for number in range(300))


def client(url: str, **given: Any) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{url}/v1", **{"api_key": "sesame", "max_retries": 0, **given})


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    models = {"text-embedding-3-small": "dense"}
    directory = tmp_path_factory.mktemp("openai")
    with serving(directory, models=models, limits=Limits(inputs=4), api_key="sesame") as (url, _):
        yield url


def test_vectors_come_in_order_with_what_they_cost(url: str):
    texts = ["moon tide", "cat"]
    answer = client(url).embeddings.create(model="text-embedding-3-small", input=texts)
    assert (answer.object, answer.model) == ("list", "text-embedding-3-small")
    assert [(each.object, each.index) for each in answer.data] == [("embedding", 0), ("embedding", 1)]
    vectors = np.float32([each.embedding for each in answer.data])
    np.testing.assert_array_equal(vectors, NET.encode(texts))
    assert answer.usage.prompt_tokens == answer.usage.total_tokens == 4 + 3


def test_numbers_are_the_same_as_text_and_in_base64(url: str):
    def create(**format: Any) -> list[float]:
        answer = client(url).embeddings.create(model="dense", input="moon tide sea", **format)
        return answer.data[0].embedding

    plain = create(encoding_format="float")
    np.testing.assert_array_equal(
        np.float32(plain), np.float32(create())
    )  # the client asks for base64 itself
    raw: Any = create(encoding_format="base64")
    np.testing.assert_array_equal(np.frombuffer(base64.b64decode(raw), "<f4"), np.float32(plain))


def test_fewer_dimensions_are_at_unit_length_again(url: str):
    whole = NET.encode(["moon tide"])[0]
    number = int(whole.argmax()) + 1  # of the two words, the first one's number is the last that is kept
    answer = client(url).embeddings.create(model="dense", input="moon tide", dimensions=number)
    assert answer.data[0].embedding == [0.0] * (number - 1) + [1.0]


def test_token_ids_stand_for_texts(url: str):
    tide, moon = (ids[1:-1] for ids in NET.tokenize(["tide", "moon"]))
    several = client(url).embeddings.create(model="dense", input=[tide, moon])
    alone = client(url).embeddings.create(model="dense", input=tide)
    assert [each.embedding for each in several.data] == NET.encode(["tide", "moon"]).tolist()
    assert [each.embedding for each in alone.data] == NET.encode(["tide"]).tolist()


def test_texts_are_cut_if_that_is_asked_with_the_extension_of_vllm(url: str):
    def create(text: str, most: int) -> Any:
        extra = {"truncate_prompt_tokens": most}
        return client(url).embeddings.create(model="dense", input=text, extra_body=extra)

    assert create(LONG, -1).usage.prompt_tokens == 256
    five = create(LONG, 5)  # two of them are the net's own
    assert five.usage.prompt_tokens == 5
    assert five.data[0].embedding == NET.encode(["w0 w1 w2"])[0].tolist()
    for most, sentence in ((257, "257 tokens are more than"), (2, "2 tokens are too few"), (-2, "truncate_")):
        with pytest.raises(openai.BadRequestError, match=sentence):
            create(LONG, most)


def test_what_means_nothing_here_is_ignored(url: str):
    answer = client(url).embeddings.create(model="dense", input="tide", user="me", extra_body={"x": 1})
    assert len(answer.data) == 1


@pytest.mark.parametrize(
    ("changed", "kind", "sentence", "param", "code"),
    [
        ({"input": ""}, openai.BadRequestError, "input has nothing to encode", "input", "empty_input"),
        ({"input": []}, openai.BadRequestError, "input is empty", "input", "empty_input"),
        ({"input": ["a", ""]}, openai.BadRequestError, "at position 1", "input", "empty_input"),
        ({"input": [[1], []]}, openai.BadRequestError, "at position 1", "input", "empty_input"),
        ({"input": {"text": "a"}}, openai.BadRequestError, "give a text, a list", "input", "invalid_request"),
        ({"input": ["a"] * 5}, openai.BadRequestError, "limit 'inputs' is 4", "input", "limit_exceeded"),
        ({"input": LONG}, openai.BadRequestError, "300 tokens, and the model", "input", "text_too_long"),
        ({"input": [1, 64]}, openai.BadRequestError, "64 is no token of", "input", "unknown_token"),
        ({"dimensions": 65}, openai.BadRequestError, "have 64", "dimensions", "invalid_request"),
        ({"dimensions": 0}, openai.BadRequestError, "dimensions: ", "dimensions", "invalid_request"),
        ({"encoding_format": "hex"}, openai.BadRequestError, "'float'", "encoding_format", "invalid_request"),
        ({"model": "gpt"}, openai.NotFoundError, "there is no model 'gpt'", None, "model_not_found"),
        ({"model": "late"}, openai.NotFoundError, "does not do this; dense do", None, "model_not_found"),
    ],
)
def test_errors_are_those_of_the_client(
    url: str,
    changed: dict[str, Any],
    kind: type[openai.APIStatusError],
    sentence: str,
    param: str | None,
    code: str,
):
    with pytest.raises(kind) as error:
        client(url).embeddings.create(**{"model": "dense", "input": "tide", **changed})
    assert sentence in error.value.body["message"]
    assert error.value.body["type"] == "invalid_request_error"
    assert (error.value.param, error.value.code) == (param, code)
    assert list(error.value.response.json()) == ["error"]


def test_models_are_those_that_can_be_asked_for(url: str):
    found = client(url).models.list().data
    in_context = [f"in_context_{mode}" for mode in ("keys", "cached", "query_aware", "dense")]
    named = ["dense", "sparse", "late", "cross", *in_context, "text-embedding-3-small"]
    assert [each.id for each in found] == named
    assert {(each.object, each.owned_by, each.created) for each in found} == {("model", "winnow", 0)}


def test_a_wrong_key_is_an_error_of_the_client_too(url: str):
    with pytest.raises(openai.AuthenticationError) as error:
        client(url, api_key="open").embeddings.create(model="dense", input="tide")
    assert (error.value.type, error.value.code) == ("authentication_error", "unauthorized")


async def test_many_calls_at_once_get_their_own_vectors(url: str):
    texts = [f"w{number}" for number in range(20)]
    async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="sesame", max_retries=0) as several:
        calls = (several.embeddings.create(model="dense", input=text) for text in texts)
        answers = await asyncio.gather(*calls)
    found = [answer.data[0].embedding for answer in answers]
    np.testing.assert_array_equal(np.float32(found), NET.encode(texts))


async def test_a_full_queue_is_a_rate_limit_that_says_when_to_come_back(tmp_path: Path):
    net = CountingNet()

    def load(role: str, name: str) -> Any:
        return net if role == "dense" else word_overlap(role, name)

    with serving(tmp_path, load, **SETTINGS) as (url, state):
        async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="any", max_retries=0) as several:

            async def embed(texts: list[str]) -> Any:
                return await several.embeddings.create(model="dense", input=texts)

            async with full(net, state, embed):
                with pytest.raises(openai.RateLimitError) as error:
                    await embed(["sea"])
    assert (error.value.type, error.value.code) == ("rate_limit_error", "overloaded")
    assert int(error.value.response.headers["retry-after"]) >= 1


async def test_an_answer_has_these_fields_and_no_others(service: Service):
    answer = await service.ask("POST", "/v1/embeddings", json={"input": "tide"})
    (vector,) = NET.encode(["tide"]).tolist()
    assert answer == {
        "object": "list",
        "data": [{"object": "embedding", "index": 0, "embedding": vector}],
        "model": "dense",
        "usage": {"prompt_tokens": 3, "total_tokens": 3},
    }


async def test_vectors_are_those_of_the_encoder_whatever_they_are_asked_with(tmp_path: Path):
    path = str(tiny_encoder(tmp_path / "net"))
    load = loader(tmp_path / "cache")
    texts = ["the moon", "tide", "the sea and the sun"]
    expected = load("dense", path).encode(texts)  # type: ignore[attr-defined]
    async with running(tmp_path / "data", load, encoder=path) as service:
        together = await service.ask("POST", "/v1/embeddings", json={"input": texts})
        apart = [await service.ask("POST", "/v1/embeddings", json={"input": text}) for text in texts]
    found = np.float32([each["embedding"] for each in together["data"]])
    assert (found * expected).sum(1) == pytest.approx(np.ones(3), abs=1e-3)
    single = np.float32([each["data"][0]["embedding"] for each in apart])
    assert (found * single).sum(1) == pytest.approx(np.ones(3), abs=1e-3)
