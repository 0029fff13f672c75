"""What nets make of questions, kept: the same arrays as without, of every kind of net, and one forward."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from service.cache import MemoryCache
from service.nets import Nets
from service.query_encodings import QueryEncodings
from service.settings import Settings
from service.types import QuestionTokens
from service.workers import Workers
from tests.nets import (
    CountingNet,
    WordOverlapEncoder,
    WordOverlapLateEncoder,
    WordOverlapSparseEncoder,
    loading,
)
from tests.service.in_context_net import WordOverlapInContextNet


class Pooling(WordOverlapLateEncoder):
    """Makes one vector of a question beside those of its tokens."""

    pooled = "pooled"

    def vectors(self, tokens: Any, sentences: bool) -> Any:
        made = super().vectors(tokens, sentences)
        return [(vectors, vectors.mean(axis=0) if sentences else None) for vectors, _ in made]


@pytest.fixture
async def workers() -> AsyncIterator[Workers]:
    workers = Workers(1)
    yield workers
    workers.close()


def encodings(budget: int = 2**20) -> QueryEncodings:
    return QueryEncodings(MemoryCache(budget))


def same(one: Any, other: Any) -> bool:
    if one is None or other is None:
        return one is other
    if isinstance(one, tuple):
        return all(same(left, right) for left, right in zip(one, other, strict=True))
    return one.dtype == other.dtype and np.array_equal(one, other) and other.flags.writeable


@pytest.mark.parametrize("late", [WordOverlapLateEncoder(), Pooling()])
async def test_what_is_kept_is_what_was_made(tmp_path: Path, workers: Workers, late: Any):
    load = loading(in_context=WordOverlapInContextNet(), late=late)
    plain = Nets(Settings(data_dir=tmp_path), workers, load)
    nets = plain.remembering(encodings())
    for ask in ("query_vector", "query_terms", "query_tokens"):
        first, second, third = [
            await getattr(each, ask)("net", None, "the moon and the sea") for each in (plain, nets, nets)
        ]
        assert same(first, second)
        assert same(first, third)
        assert isinstance(third, QuestionTokens) == (ask == "query_tokens")
    (_, first), (_, second), (net, third) = [
        await each.key_question("net", None, "the moon") for each in (plain, nets, nets)
    ]
    assert net is await nets.reranker("net", None)
    assert all(same(vars(first)[name], vars(each)[name]) for each in (second, third) for name in vars(first))
    await plain.stop()


async def test_a_net_is_asked_once_and_other_nets_for_themselves(tmp_path: Path, workers: Workers):
    class Other(CountingNet):
        fingerprint = "other"

    class Coarse(CountingNet):
        dtype = "bfloat16"

    kept, counts = encodings(), []
    for net in (CountingNet(), CountingNet(), Other(), Coarse()):
        nets = Nets(Settings(data_dir=tmp_path), workers, loading(dense=net)).remembering(kept)
        await nets.get("dense", "net", None)
        before = len(net.batches)
        for query in ("moon", "moon", "sea"):
            await nets.query_vector("net", None, query)
        counts.append(len(net.batches) - before)
        await nets.stop()
    assert counts == [2, 0, 2, 2]


async def test_a_net_of_another_kind_with_the_same_fingerprint_is_another(tmp_path: Path, workers: Workers):
    class Dense(WordOverlapEncoder):
        fingerprint = "same"

    class Sparse(WordOverlapSparseEncoder):
        fingerprint = "same"

    nets = Nets(Settings(data_dir=tmp_path), workers, loading(dense=Dense(), sparse=Sparse()))
    nets = nets.remembering(encodings())
    assert (await nets.query_vector("net", None, "moon")).shape == (64,)
    assert len(await nets.query_terms("net", None, "moon")) == 2
    await nets.stop()


async def test_what_a_full_cache_cannot_keep_is_made_again(tmp_path: Path, workers: Workers):
    net = CountingNet()
    nets = Nets(Settings(data_dir=tmp_path), workers, loading(dense=net)).remembering(encodings(1))
    await nets.get("dense", "net", None)
    before = len(net.batches)
    assert same(await nets.query_vector("net", None, "moon"), await nets.query_vector("net", None, "moon"))
    assert len(net.batches) == before + 2
    await nets.stop()
