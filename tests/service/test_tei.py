"""The wire of Text Embeddings Inference. Vectors and scores are of the words that texts share."""

from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from models.load import WeightsMissing
from models.roles import loader
from service.settings import Limits
from tests.nets import CountingNet, WordOverlapEncoder, WordOverlapSparseEncoder, tiny_encoder, word_overlap
from tests.running import Service, running
from tests.service.full_queue import SETTINGS, full

TEXTS = ["cat dog", "moon tide", "moon dog"]
TIDE = WordOverlapEncoder().encode(["tide"])[0]


def dense(net: Any) -> Callable[[str, str], Any]:
    """This net where a dense one is asked for."""
    return lambda role, name: net if role == "dense" else word_overlap(role, name)


async def rerank(service: Service, status: int = 200, **changed: Any) -> Any:
    return await service.ask(
        "POST", "/rerank", status, json={"query": "moon tide", "texts": TEXTS, **changed}
    )


async def test_texts_come_back_best_first(service: Service):
    assert await rerank(service) == [  # (1 + the mean of cosines) / 2
        {"index": 1, "score": pytest.approx(1.0, abs=0.01)},
        {"index": 2, "score": pytest.approx(0.75, abs=0.01)},
        {"index": 0, "score": pytest.approx(0.5, abs=0.01)},
    ]


async def test_raw_scores_are_those_of_the_net_and_texts_come_if_asked_for(service: Service):
    assert await rerank(service, raw_scores=True, return_text=True, model="sparse") == [
        {"index": 1, "score": 2.0, "text": "moon tide"},
        {"index": 2, "score": 1.0, "text": "moon dog"},
        {"index": 0, "score": 0.0, "text": "cat dog"},
    ]


async def test_of_equal_texts_the_earlier_comes_first_and_a_text_may_be_empty(service: Service):
    found = await rerank(service, texts=["", "moon tide", "", "moon tide"], model="dense")
    assert [each["index"] for each in found] == [1, 3, 0, 2]


async def test_one_text_or_several_give_a_list_of_vectors(service: Service):
    alone = await service.ask("POST", "/embed", json={"inputs": "tide"})
    np.testing.assert_array_equal(alone, [TIDE])
    several = await service.ask("POST", "/embed", json={"inputs": ["moon", "tide"]})
    assert [len(each) for each in several] == [64, 64]
    assert several[1] == alone[0]


async def test_dimensions_keep_the_first_numbers_at_unit_length_again(service: Service):
    (whole,) = await service.ask("POST", "/embed", json={"inputs": "moon tide"})
    number = whole.index(max(whole)) + 1  # of the two words, the first one's number is the last that is kept
    request = {"inputs": "moon tide", "dimensions": number}
    assert await service.ask("POST", "/embed", json=request) == [[0.0] * (number - 1) + [1.0]]
    assert await service.ask("POST", "/embed", json={**request, "normalize": False}) == [whole[:number]]


async def test_sparse_vectors_are_lists_of_entries(service: Service):
    found = await service.ask("POST", "/embed_sparse", json={"inputs": ["moon tide moon", "cat"]})
    terms = [sorted(ids[1:-1]) for ids in WordOverlapSparseEncoder().tokenize(["moon tide", "cat"])]
    assert found == [[{"index": term, "value": 1.0} for term in each] for each in terms]


class Prompted(WordOverlapEncoder):
    """A net that puts a word before each text, which says what it is."""

    def tokenize(self, texts: Sequence[str], kind: str = "document") -> list[list[int]]:
        return super().tokenize([f"{kind} {text}" for text in texts])


@pytest.mark.parametrize(
    ("name", "kind"),
    [("query", "query"), ("passage", "document"), ("corpus", "document"), (None, "document")],
)
async def test_the_name_of_a_prompt_says_what_texts_are(tmp_path: Path, name: str | None, kind: str):
    async with running(tmp_path, dense(Prompted())) as service:
        found = await service.ask("POST", "/embed", json={"inputs": "tide", "prompt_name": name})
    np.testing.assert_array_equal(np.float32(found), WordOverlapEncoder().encode([f"{kind} tide"]))


INFO = {
    "model_id": "some",
    "model_sha": "word-overlap-64",
    "model_dtype": "float32",
    "served_model_name": "dense",
    "model_type": {"embedding": {"pooling": "mean"}},
    "max_concurrent_requests": 7,
    "max_input_length": 256,
    "max_batch_tokens": 512,
    "max_batch_requests": 8,
    "max_client_batch_size": 32,
    "auto_truncate": False,
    "tokenization_workers": 3,
    "version": version("winnow-search"),
    "sha": None,
    "docker_label": None,
}
SCORES = {"reranker": {"id2label": {"0": "LABEL_0"}, "label2id": {"LABEL_0": 0}}}


async def test_info_says_what_is_served_and_what_it_takes(tmp_path: Path):
    given = {"encoder": "some", "late_encoder": "other", "requests": 7, "batch_tokens": 512}
    limits = Limits(inputs=32, rerank=100)
    async with running(tmp_path, batch_texts=8, threads=3, limits=limits, **given) as service:
        assert await service.ask("GET", "/info") == INFO
        assert await service.ask("GET", "/info?model=dense") == INFO
        late = await service.ask("GET", "/info?model=late")
        sparse = await service.ask("GET", "/info?model=sparse")
        lost = await service.ask("GET", "/info?model=gpt", 404)
    assert (late["model_id"], late["model_type"], late["max_client_batch_size"]) == ("other", SCORES, 100)
    assert sparse["model_type"] == {"embedding": {"pooling": "splade"}}
    assert lost["error"].startswith("there is no model 'gpt'; there are dense, sparse, ")


LONG = " ".join(f"w{number}" for number in range(300))


@pytest.mark.parametrize(
    ("path", "body", "status", "kind", "sentence"),
    [
        ("/embed", {"inputs": []}, 400, "Empty", "inputs is empty"),
        ("/embed", {"inputs": ""}, 400, "Empty", "inputs has nothing to encode at position 0"),
        ("/embed", {"inputs": ["a", ""]}, 400, "Empty", "at position 1"),
        ("/embed_sparse", {"inputs": [[]]}, 400, "Empty", "at position 0"),
        ("/rerank", {"query": "a", "texts": []}, 400, "Empty", "texts is empty"),
        ("/rerank", {"query": "", "texts": ["a"]}, 400, "Empty", "query is empty"),
        ("/embed", {"inputs": 7}, 422, "Validation", "inputs: give a text, a list of texts, a list of token"),
        ("/embed", {"inputs": ["a", 7]}, 422, "Validation", "inputs: give a text"),
        ("/embed", {}, 422, "Validation", "inputs: Field required"),
        ("/embed", {"inputs": "a", "prompt_name": "ask"}, 422, "Validation", "'query', 'document'"),
        ("/embed", {"inputs": "a", "dimensions": 65}, 422, "Validation", "vectors of word-overlap have 64"),
        ("/embed", {"inputs": ["a"] * 2049}, 422, "Validation", "the limit 'inputs' is 2048"),
        ("/embed", {"inputs": LONG}, 422, "Validation", "text 0 has 300 tokens, and the model reads 254"),
        ("/embed_sparse", {"inputs": LONG}, 422, "Validation", "text 0 has 300 tokens"),
        ("/rerank", {"query": "a", "texts": ["a", LONG]}, 422, "Validation", "text 1 has "),
        ("/rerank", {"query": "a", "texts": [7]}, 422, "Validation", "texts.0: "),
        ("/rerank", {"query": "a" * 8193, "texts": ["a"]}, 422, "Validation", "'query_bytes' is 8192"),
        ("/rerank", {"query": "a", "texts": ["a"] * 1001}, 422, "Validation", "'rerank' is 1000"),
        ("/embed", {"inputs": [1, 64]}, 422, "Tokenizer", "64 is no token of word-overlap"),
        ("/embed", {"inputs": "a", "model": "gpt"}, 404, "Validation", "there is no model 'gpt'"),
        ("/embed", {"inputs": "a", "model": "late"}, 404, "Validation", "the model 'late' does not do this"),
        ("/rerank", {"query": "a", "texts": ["a"], "model": "cross"}, 404, "Validation", "WINNOW_CROSS_"),
    ],
)  # fmt: skip
async def test_errors(service: Service, path: str, body: Any, status: int, kind: str, sentence: str):
    error = await service.ask("POST", path, status, json=body)
    assert list(error) == ["error", "error_type"]
    assert error["error_type"] == kind
    assert sentence in error["error"]


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/embed", {"inputs": ["a", "moon tide"]}),
        ("/embed_sparse", {"inputs": ["a", "moon tide"]}),
        ("/rerank", {"query": "a", "texts": ["a", "moon tide"]}),
    ],
)
async def test_a_text_is_as_large_as_a_document_at_most(tmp_path: Path, path: str, body: Any):
    async with running(tmp_path, limits=Limits(document_bytes=8)) as service:
        error = await service.ask("POST", path, 422, json=body)
    assert error["error"].startswith("text 1 in bytes is 9; the limit 'document_bytes' is 8")


async def test_errors_from_before_a_route_have_the_same_shape(tmp_path: Path):
    limits, key = Limits(body_bytes=100), {"Authorization": "Bearer sesame"}
    json = {"Content-Type": "application/json", **key}
    async with running(tmp_path, limits=limits, api_key="sesame") as service:
        large = await service.ask("POST", "/embed", 413, json={"inputs": "a" * 100}, headers=key)
        broken = await service.ask("POST", "/embed", 400, content=b"{", headers=json)
        method = await service.ask("GET", "/embed", 405, headers=key)
        closed = await service.ask("POST", "/embed", 401, json={"inputs": "a"})
    assert [each["error_type"] for each in (large, broken, method, closed)] == [
        "Validation",
        "Validation",
        "Validation",
        "Unauthorized",
    ]
    assert "'body_bytes' of 100 bytes" in large["error"]
    assert "not valid JSON" in broken["error"]


async def test_a_net_that_is_missing_is_unhealthy_and_one_that_fails_is_a_failed_dependency(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    net = WordOverlapEncoder()

    def load(role: str, name: str) -> Any:
        if role == "sparse":
            raise WeightsMissing("pip install it")
        return net if role == "dense" else word_overlap(role, name)

    async with running(tmp_path, load, batch_tokens=100) as service:
        missing = await service.ask("POST", "/embed_sparse", 503, json={"inputs": "tide"})
        await service.ask("POST", "/embed", json={"inputs": "tide"})
        monkeypatch.setattr(net, "forward", lambda tokens: [])
        failed = await service.ask("POST", "/embed", 424, json={"inputs": "tide"})
    assert missing["error_type"] == "Unhealthy"
    assert missing["error"].endswith("cannot be loaded: pip install it")
    assert failed["error_type"] == "Backend"
    assert "gave 0 rows for 1 texts" in failed["error"]


async def test_a_full_queue_says_when_to_come_back(tmp_path: Path):
    net = CountingNet()
    async with running(tmp_path, dense(net), **SETTINGS) as service:

        async def embed(texts: list[str]) -> Any:
            return await service.client.post("/embed", json={"inputs": texts})

        async with full(net, service.state, embed):
            response: httpx.Response = await embed(["sea"])
    assert response.status_code == 429
    assert response.json()["error_type"] == "Overloaded"
    assert "calls of 6 interactive tokens wait for the net" in response.json()["error"]
    assert int(response.headers["retry-after"]) >= 1


async def test_more_than_may_wait_is_encoded_when_nothing_else_waits(tmp_path: Path):
    async with running(tmp_path, batch_tokens=10, queued_tokens=10) as service:
        vectors = await service.ask("POST", "/embed", json={"inputs": ["a"] * 11})
    assert len(vectors) == 11


@pytest.mark.parametrize("path", ["/embed", "/embed_sparse"])
async def test_texts_are_cut_at_either_end(service: Service, path: str):
    """A net reads 254 words and two tokens that it adds."""
    words = LONG.split()

    async def vectors(*texts: str, **request: Any) -> Any:
        return await service.ask("POST", path, json={"inputs": list(texts), **request})

    first, last = await vectors(" ".join(words[:254]), " ".join(words[-254:]), truncate=False)
    assert first != last
    assert await vectors("moon", LONG, truncate=True) == [*await vectors("moon"), first]
    left = await vectors("moon", LONG, truncate=True, truncation_direction="left")
    assert left == [*await vectors("moon"), last]


async def test_what_is_scored_of_a_text_is_its_end_if_that_is_asked(service: Service):
    request = {"texts": ["moon" + 300 * " cat", 300 * "cat " + "tide"], "truncate": True}
    for model in ("dense", "sparse", "late"):
        right = await rerank(service, **request, model=model)
        left = await rerank(service, **request, model=model, truncation_direction="left")
        assert [right[0]["index"], left[0]["index"]] == [0, 1]


async def test_a_net_that_chooses_what_it_reads_has_no_end(tmp_path: Path):
    async with running(tmp_path, cross_encoder="some") as service:
        asked = {"model": "cross", "truncate": True}
        assert len(await rerank(service, **asked)) == 3
        error = await rerank(service, 422, **asked, truncation_direction="left")
    assert error["error"] == "texts are cut on the left for dense, sparse, late, and not for cross"


async def test_token_ids_are_those_of_the_net_and_vectors_have_the_length_it_gives_them(tmp_path: Path):
    net = str(tiny_encoder(tmp_path / "net", max_tokens=16))
    async with running(tmp_path / "data", loader(tmp_path / "cache"), encoder=net) as service:
        texts = await service.ask("POST", "/embed", json={"inputs": ["tide moon", "the sea"]})
        vocabulary = [12, 13], [5, 14]  # "tide", "moon"; "the", "sea"
        assert await service.ask("POST", "/embed", json={"inputs": vocabulary}) == texts
        assert await service.ask("POST", "/embed", json={"inputs": vocabulary[0]}) == texts[:1]
        unknown = await service.ask("POST", "/embed", 422, json={"inputs": [[5], [5, 900]]})
        length = await service.ask("POST", "/embed", 422, json={"inputs": "tide", "normalize": False})
    assert unknown["error"].startswith(f"900 is no token of {net}, whose tokens are 0 to ")
    assert length["error"] == f"vectors of {net} are given at unit length only: leave normalize out"
