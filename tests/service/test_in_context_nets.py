"""Reranking in context over HTTP by real decoders, tiny and random: what they score means nothing, but is
what the same net scores outside of the service.
"""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from models.in_context.net import InContextNet
from models.in_context.states import Joined
from tests.models.in_context.nets import DOCUMENTS, QUERY, tiny_net
from tests.nets import loading
from tests.running import Service, running

EVERYTHING = {"components": ["bm25", "dense", "sparse", "late", "keys"]}
READ_OUTS: list[dict[str, Any]] = [
    {"kind": "blockrank"},
    {"kind": "heads", "heads": [[2, 0, 1.0], [2, 3, 0.5]], "temperature": 0.5, "calibrate": True},
]


@asynccontextmanager
async def reading(directory: Path, net: InContextNet) -> AsyncIterator[Service]:
    """A service over the documents, each a passage, that this net reads."""
    async with running(directory / "data", load=loading(in_context=net)) as service:
        service.load = loading(in_context=net)
        await service.make(**EVERYTHING)
        await service.put([{"id": str(n), "title": a, "text": b} for n, (a, b) in enumerate(DOCUMENTS)])
        yield service


@contextmanager
def counting(net: InContextNet) -> Iterator[list[int]]:
    """The numbers of tokens that pass into the net's first layer."""
    passed: list[int] = []
    hook = net._decoder._model.embed_tokens.register_forward_hook(
        lambda module, inputs, output: passed.append(inputs[0].numel())
    )
    try:
        yield passed
    finally:
        hook.remove()


async def scores(service: Service, mode: str) -> dict[str, float]:
    stages = [{"stage": "dense"}, {"stage": "in_context", "mode": mode, "weight": 1.0}, {"stage": "group"}]
    answer = await service.search(QUERY, pipeline=stages, explain=True)
    assert answer["degraded"] == []
    return {hit["id"]: hit["score"] for hit in answer["hits"]}


@pytest.mark.parametrize("read", READ_OUTS, ids=lambda read: read["kind"])
async def test_every_mode_scores_as_the_net_does_by_itself(tmp_path: Path, read: dict[str, Any]):
    net = tiny_net(tmp_path, read=read)
    async with reading(tmp_path, net) as service:
        order = [int(name) for name in await service.ids(QUERY, pipeline="dense")]  # it matters to mode dense
        expected = _by_itself(net, [cut.ids for cut in net.document_tokens([DOCUMENTS[n] for n in order])])
        for mode, wanted in expected.items():
            found = await scores(service, mode)
            bound = 0.1 * float(np.ptp(wanted)) if mode in ("keys", "cached") else 1e-5  # kept in 8 bits
            np.testing.assert_allclose([found[str(n)] for n in order], wanted, atol=bound, rtol=0)


def _by_itself(net: InContextNet, ids: list[list[int]]) -> dict[str, np.ndarray[Any, Any]]:
    """Scores in every mode, nothing kept in 8 bits."""
    (cached,) = net.ask([net.question(QUERY, "cached")], [Joined(net.read_documents(ids))])
    aware, dense = net.rank([net.prompt(QUERY, ids, mode) for mode in ("query_aware", "dense")])
    return {
        "cached": cached.scores,
        "keys": _by_keys(net, ids),
        "query_aware": aware.scores,
        "dense": dense.scores,
    }


def _by_keys(net: InContextNet, ids: list[list[int]]) -> np.ndarray[Any, Any]:
    """What a question's rows have of the softmax over all tokens of all documents, in float64."""
    (asked,) = net.ask_alone([net.question(QUERY, "keys")])
    keys = np.concatenate(net.document_keys(ids)).astype(np.float64)
    logits = np.einsum("rd,trd->rt", asked.vectors, keys[:, asked.kv_heads])
    odds = np.exp(logits - logits.max(axis=1, keepdims=True))
    mass = asked.weights @ (odds / odds.sum(axis=1, keepdims=True))
    return np.add.reduceat(mass, np.cumsum([0, *map(len, ids[:-1])]))


async def test_no_token_of_a_document_passes_through_the_net_for_keys_nor_for_what_is_cached(tmp_path: Path):
    net = tiny_net(tmp_path, read=READ_OUTS[1])
    question = net.question(QUERY, "cached")
    documents = sum(len(cut.ids) for cut in net.document_tokens(DOCUMENTS))
    async with reading(tmp_path, net) as service:
        await scores(service, "keys")  # loads the net, and asks what is asked of every net once
        with counting(net) as passed:
            await scores(service, "keys")
        assert sum(passed) == len(question.block.ids), "the question, without the one that has no content"
        with counting(net) as passed:
            await scores(service, "cached")
        assert sum(passed) >= len(question) + documents
        with counting(net) as passed:
            await scores(service, "cached")
        assert sum(passed) == len(question)


async def test_deep_runs_over_http_with_a_model_that_the_settings_name(tmp_path: Path):
    tiny_net(tmp_path / "net")
    name = str(tmp_path / "net")

    def load(role: str, wanted: str) -> Any:
        return InContextNet.load(wanted) if role == "in_context" else loading()(role, wanted)

    async with running(tmp_path / "data", load=load, in_context_model=name) as service:
        service.load = load
        await service.make(**EVERYTHING)
        await service.put([{"id": str(n), "title": a, "text": b} for n, (a, b) in enumerate(DOCUMENTS)])
        answer = await service.search(QUERY, pipeline="deep", explain=True)
        assert answer["degraded"] == []
        assert answer["stages"][3]["scored"] == len(answer["hits"])
        for hit in answer["hits"]:
            shares = [each["share"] for each in hit["explanation"]["in_context_query_aware"]]
            assert shares == sorted(shares, reverse=True)
            assert 0 < sum(shares) <= 1 + 1e-6
        kept = f'winnow_cache_entries{{cache="in_context",net="{name}"}}'
        assert kept in (await service.client.get("/metrics")).text
