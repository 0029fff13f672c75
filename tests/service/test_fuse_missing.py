"""Fusion with real scores: what an input did not find is scored as if it had looked further."""

import asyncio
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from service.stages import Bm25, Dense, Fuse, Group, Sparse
from service.types import Hits
from tests.service.hand_made import scores
from tests.service.on_disk import Direct, asked, collection, folder

RETRIEVERS: Mapping[str, type[Bm25] | type[Dense] | type[Sparse]] = {
    "bm25": Bm25,
    "dense": Dense,
    "sparse": Sparse,
}

TEXTS = [
    "moon cat rain sun. tide tide tide tide",
    "cat cat cat cat",
    "sea tide rain sun. moon moon moon moon",
]  # passages 0 and 1; 2; 3 and 4
QUERY = "moon moon moon moon cat cat cat"  # passage 0 is best by words, passage 4 by cosine


def shallow(**fields: object) -> Fuse:
    """Three retrievers, one hit each."""
    inputs = tuple((stage(k=1),) for stage in RETRIEVERS.values())
    return Fuse(inputs=inputs, missing="score", normalisation="theoretical", **fields)


def by_seq(hits: Hits, name: str) -> dict[int, float]:
    return dict(zip(hits.seqs.tolist(), hits.raw[name].tolist(), strict=True))


async def test_raw_scores_are_those_of_a_retriever_that_looks_further(tmp_path: Path):
    snapshot = collection(tmp_path, TEXTS, cuts=[1])
    found = (await asked(snapshot, QUERY, shallow())).hits
    assert set(found.seqs.tolist()) == {0, 4}
    for name, stage in RETRIEVERS.items():
        deep = by_seq((await asked(snapshot, QUERY, stage())).hits, name)
        assert by_seq(found, name) == {seq: deep.get(seq, 0.0) for seq in found.seqs.tolist()}


async def test_a_document_that_was_not_found_has_the_score_of_its_best_passage(tmp_path: Path):
    """Words find the first document, cosines the last; each is then scored by the other."""
    snapshot = collection(tmp_path, TEXTS, cuts=[2], lexical_unit="passage")
    inputs = ((Bm25(k=1), Group()), (Dense(k=1),))
    stage = Fuse(inputs=inputs, missing="score", normalisation="theoretical", unit="document")
    found = (await asked(snapshot, QUERY, stage)).hits
    assert set(found.seqs.tolist()) == {0, 4}
    for name in ("bm25", "dense"):
        deep = by_seq((await asked(snapshot, QUERY, RETRIEVERS[name]())).hits, name)
        assert by_seq(found, name) == {0: deep[0], 4: deep[4]}


async def test_a_hit_stands_on_the_passage_that_gave_it_most_found_or_not(tmp_path: Path):
    """Words find passage 0 of its document; its other passage is what cosines prefer, and they weigh more."""
    snapshot = collection(tmp_path, ["moon cat rain sun. moon moon moon sea", "moon moon moon moon"])
    query, inputs = "moon moon moon moon sun sun sun", ((Bm25(k=1),), (Dense(k=1),))
    stage = Fuse(
        inputs=inputs, missing="score", normalisation="theoretical", unit="document", weights=(0.1, 0.9)
    )
    found = (await asked(snapshot, query, stage)).hits
    assert found.seqs.tolist() == [1, 2]
    deep = (await asked(snapshot, query, Dense())).hits
    assert deep.seqs.tolist() == [2, 1, 0]
    assert by_seq(found, "dense") == {seq: by_seq(deep, "dense")[seq] for seq in (1, 2)}


async def test_a_question_is_encoded_once(tmp_path: Path):
    nets = Direct()
    outcome = await asked(collection(tmp_path, TEXTS), "moon cat", shallow(), nets=nets)
    assert nets.asked == 2, "dense and sparse"
    assert [account["status"] for account in outcome.accounts] == ["ran"]


async def test_the_dead_and_the_forbidden_lend_no_passage(tmp_path: Path):
    snapshot = collection(tmp_path, [*TEXTS, "moon moon sea tide"], cuts=[1, 2], gone=[0])
    found = (await asked(snapshot, "moon tide", shallow(unit="document"), documents=[0, 1, 2])).hits
    assert len(found) > 0
    assert set(found.seqs.tolist()) <= {2, 3, 4}


@pytest.mark.parametrize("stage", RETRIEVERS.values())
async def test_nothing_to_score_is_no_work(stage: type[Bm25] | type[Dense] | type[Sparse], tmp_path: Path):
    snapshot = collection(tmp_path, [])
    assert len((await asked(snapshot, "moon", Fuse(inputs=((stage(),),), missing="score"))).hits) == 0


WORDS = ["moon", "sea", "tide", "rain", "sun", "cat"]
SENTENCE = st.lists(st.sampled_from(WORDS), min_size=4, max_size=4).map(" ".join)
TEXT = st.lists(SENTENCE, min_size=1, max_size=3).map(". ".join)


@given(
    texts=st.lists(TEXT, min_size=1, max_size=6),
    data=st.data(),
    normalisation=st.sampled_from(["minmax", "theoretical", "zscore", "distribution"]),
    missing=st.sampled_from(["floor", "score"]),
    unit=st.sampled_from(["passage", "document"]),
    k=st.integers(1, 4),
)
@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_any_segmentation_gives_the_same_fusion(texts, data, normalisation, missing, unit, k):
    cuts = data.draw(st.sets(st.integers(1, len(texts))))
    gone = data.draw(st.sets(st.integers(0, len(texts) - 1), max_size=2))
    query = " ".join(data.draw(st.lists(st.sampled_from(WORDS), min_size=1, max_size=4)))
    stage = Fuse(
        inputs=tuple((stage(k=k),) for stage in RETRIEVERS.values()),
        normalisation=normalisation,
        missing=missing,
        unit=unit,
    )
    with folder() as root:
        whole, cut, merged = (
            asyncio.run(asked(snapshot, query, stage)).hits
            for snapshot in (
                collection(root, texts, gone=gone),
                collection(root, texts, cuts, gone),
                collection(root, texts, cuts, gone, merge=True),
            )
        )
    assert scores(whole) == scores(cut) == scores(merged)
    assert whole.seqs.tolist() == cut.seqs.tolist() == merged.seqs.tolist()
    assert np.array_equal(whole.scores, cut.scores)
    assert np.array_equal(whole.scores, merged.scores)
    if missing == "score":
        assert not any(np.isnan(values).any() for values in whole.raw.values())
