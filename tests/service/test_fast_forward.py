"""Rescoring by looked-up vectors: a passage's cosine is the share of words that it has in common."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from service.pipeline import Outcome
from service.snapshot import Snapshot
from service.stages.bm25 import Bm25
from service.stages.dense import Dense
from service.stages.fast_forward import FIRST_BLOCK, FastForward, aggregated
from service.stages.fuse import Fuse
from service.stages.group import Group
from service.types import Hits
from tests.service.hand_made import scores
from tests.service.on_disk import asked, collection, folder

COMPONENTS: Any = ("bm25", "dense")
TEXTS = ["moon. tide sea rain sun.", "moon moon cat dog. moon sea.", "cat sleeps all day."]
QUESTION = "moon sea"
BM25 = Bm25(unit="passage")
# Passages 0 and 1 are of the first text, 2 and 3 of the second, 4 is the third.
COSINES = {0: 1 / math.sqrt(2), 1: 1 / math.sqrt(8), 2: 1 / math.sqrt(3), 3: 1.0, 4: 0.0}


@pytest.fixture
def snapshot(tmp_path) -> Snapshot:
    """The three texts in two segments."""
    return collection(tmp_path, TEXTS, cuts=[1], components=COMPONENTS)


async def rescored(snapshot: Snapshot, **fields: Any) -> Hits:
    return (await asked(snapshot, QUESTION, BM25, FastForward(**fields))).hits


# aggregation of cosines, on arrays


@pytest.mark.parametrize(
    ("how", "score", "stands"), [("max", 0.8, 1), ("mean", 0.5, 1), ("first", 0.2, 0), ("top", 0.5, 1)]
)
def test_a_document_is_scored_by_its_passages(how, score, stands):
    chosen, found = aggregated(np.array([0.2, 0.8], np.float32), np.array([0, 0]), how, 2)
    assert (chosen.tolist(), found.tolist()) == ([stands], [pytest.approx(score)])


def test_the_best_n_passages_and_no_more_are_averaged():
    cosines, owners = np.array([1, 3, 2, 5, 4, 4], np.float32), np.array([0, 0, 0, 1, 2, 2])
    assert aggregated(cosines, owners, "top", 2)[1].tolist() == [2.5, 5, 4]
    assert aggregated(cosines, owners, "mean", 2)[1].tolist() == [2, 5, 4]
    assert aggregated(cosines, owners, "max", 2)[0].tolist() == [1, 3, 4], "the first of equal ones"
    assert aggregated(cosines, owners, "first", 2)[0].tolist() == [0, 3, 4]


@given(st.lists(st.lists(st.floats(-1, 1, width=32), min_size=1, max_size=9), min_size=1, max_size=9))
@settings(max_examples=100)
def test_no_aggregate_exceeds_the_largest_cosine_and_none_depends_on_other_documents(documents):
    cosines = np.concatenate([np.array(document, np.float32) for document in documents])
    owners = np.repeat(np.arange(len(documents)), [len(document) for document in documents])
    for how in ("max", "mean", "first", "top"):
        _, found = aggregated(cosines, owners, how, 3)
        assert (found <= [max(document) for document in documents]).all()
        alone = [
            aggregated(np.array(one, np.float32), np.zeros(len(one), np.intp), how, 3)[1] for one in documents
        ]
        assert found.tolist() == np.concatenate(alone).tolist()


# the stage, on collections


async def test_hits_are_scored_by_both(snapshot):
    found = await rescored(snapshot, sparse_weight=0.25, normalisation="none")
    assert set(found.seqs.tolist()) == {0, 1, 2, 3}, "those that bm25 found and no others"
    for seq, score, bm25, dense in zip(found.seqs, found.scores, *found.raw.values(), strict=True):
        assert dense == pytest.approx(COSINES[seq], abs=0.01)
        assert score == np.float32(0.25 * np.float64(bm25) + 0.75 * np.float64(dense))
    assert list(found.raw) == ["bm25", "dense"]


async def test_at_either_end_the_order_is_that_of_one_side(snapshot):
    sparse = (await asked(snapshot, QUESTION, BM25)).hits
    only = (await asked(snapshot, QUESTION, BM25, FastForward(sparse_weight=1.0, normalisation="none"))).hits
    assert scores(only) == scores(sparse)
    dense = (await asked(snapshot, QUESTION, Dense())).hits
    only = (await asked(snapshot, QUESTION, BM25, FastForward(sparse_weight=0.0))).hits
    assert only.scores.tolist() == dense.scores[dense.seqs != 4].tolist()
    assert only.seqs.tolist() == dense.seqs[dense.seqs != 4].tolist() == [3, 0, 2, 1]


async def test_scores_before_can_be_put_on_the_scale_of_a_cosine(snapshot):
    found = await rescored(snapshot, sparse_weight=1.0, normalisation="minmax")
    assert (found.scores.max(), found.scores.min()) == (1, 0)
    found = await rescored(snapshot, sparse_weight=1.0, normalisation="minmax", aggregate="max")
    assert found.scores.max() == 1
    assert found.scores.min() > 0, "the scale is that of all passages that came in"


async def test_a_document_stands_on_the_passage_that_means_most(snapshot):
    found = await rescored(snapshot, sparse_weight=0.0, aggregate="max")
    assert scores(found) == {3: pytest.approx(1, abs=0.01), 0: pytest.approx(COSINES[0], abs=0.01)}
    found = await rescored(snapshot, sparse_weight=0.0, aggregate="first")
    assert list(scores(found)) == [0, 2]
    found = await rescored(snapshot, sparse_weight=0.0, aggregate="mean")
    assert found.scores.tolist() == pytest.approx(
        [(COSINES[2] + COSINES[3]) / 2, (COSINES[0] + COSINES[1]) / 2], abs=0.01
    )
    assert found.raw["dense"].tolist() == found.scores.tolist(), "a document's cosine"


async def test_passages_that_nothing_found_count_for_their_document(tmp_path):
    """The second passage of the first document does not say the word."""
    texts = ["tide moon cat dog. sea moon.", "tide cat."]
    snapshot = collection(tmp_path, texts, components=COMPONENTS)
    found = (await asked(snapshot, "tide", BM25)).hits
    assert set(found.seqs.tolist()) == {0, 2}
    stage = FastForward(sparse_weight=0.0, aggregate="mean")
    found = (await asked(snapshot, "tide", BM25, stage)).hits
    assert scores(found) == {2: pytest.approx(0.7071, abs=0.01), 0: pytest.approx(0.25, abs=0.01)}


async def test_a_cosine_that_dense_retrieval_left_is_kept(snapshot):
    both = Fuse(inputs=((BM25,), (Dense(k=1),)))
    before = (await asked(snapshot, QUESTION, both)).hits
    after = (await asked(snapshot, QUESTION, both, FastForward(sparse_weight=0.5))).hits
    assert np.isnan(before.raw["dense"]).sum() == 3
    assert not np.isnan(after.raw["dense"]).any()
    assert after.raw["dense"][after.seqs.tolist().index(3)] == before.raw["dense"][0]


async def test_no_hits_stay_none(snapshot):
    outcome = await asked(snapshot, "owl", BM25, FastForward())
    assert (len(outcome.hits), outcome.accounts[1]["status"]) == (0, "ran")


async def test_without_time_the_hits_stay_as_they_were(snapshot):
    before = (await asked(snapshot, QUESTION, BM25)).hits

    class Hurried(FastForward):
        async def __call__(self, search, hits):
            return await super().__call__(search.within(0), hits)

    outcome = await asked(snapshot, QUESTION, BM25, Hurried())
    assert outcome.accounts[1]["status"] == "skipped"
    assert scores(outcome.hits) == scores(before)


async def test_the_number_of_look_ups_is_said(tmp_path):
    """One passage says the word twice, two blocks of others once, and bm25 counts for nearly everything."""
    texts = ["moon moon", *["moon cat"] * (2 * FIRST_BLOCK)]
    snapshot = collection(tmp_path, texts, components=COMPONENTS)
    outcome = await asked(snapshot, "moon", BM25, FastForward(sparse_weight=0.99, k=1, early_stopping=True))
    assert [account.get("scored") for account in outcome.accounts] == [None, FIRST_BLOCK]
    assert outcome.hits.seqs.tolist() == [0]
    stage = FastForward(sparse_weight=0.99, k=1)
    outcome = await asked(snapshot, "moon", BM25, stage)
    assert outcome.accounts[1]["scored"] == len(texts)


WORDS = ["moon", "sea", "tide", "rain", "cat"]
SENTENCE = st.lists(st.sampled_from(WORDS), min_size=1, max_size=4).map(" ".join)
DOCUMENTS = st.lists(st.lists(SENTENCE, min_size=1, max_size=3).map(lambda s: ". ".join(s) + "."), max_size=8)


@given(DOCUMENTS.filter(len), st.data(), SENTENCE)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
async def test_neither_segments_nor_early_stopping_change_a_bit(texts, data, question):
    cuts = data.draw(st.sets(st.integers(1, len(texts))))
    gone = data.draw(st.sets(st.integers(0, len(texts) - 1)))
    stage = FastForward(
        sparse_weight=data.draw(st.sampled_from([0.0, 0.1, 0.7, 1.0])),
        normalisation=data.draw(st.sampled_from(["none", "minmax"])),
        aggregate=data.draw(st.sampled_from(["passage", "max", "mean", "first", "top"])),
        n=data.draw(st.integers(1, 3)),
        k=data.draw(st.integers(1, 5)),
        early_stopping=True,
    )
    schema = {
        "lexical_unit": "document",
        "dense_precision": data.draw(st.sampled_from(["bfloat16", "int8"])),
        "dense_coalescing": data.draw(st.sampled_from([None, 0.3])),
    }
    bm25 = Bm25(unit=data.draw(st.sampled_from(["passage", "document"])))
    patient = stage.model_copy(update={"early_stopping": False})
    with folder() as root:
        whole = collection(root / "whole", texts, gone=gone, components=COMPONENTS, **schema)
        cut = collection(root / "cut", texts, cuts, gone, components=COMPONENTS, **schema)
        merged = collection(root / "merged", texts, cuts, gone, merge=True, components=COMPONENTS, **schema)
        wanted = found(await asked(whole, question, bm25, patient))
        for snapshot in (whole, cut, merged):
            assert found(await asked(snapshot, question, bm25, stage)) == wanted


def found(outcome: Outcome) -> list[Any]:
    hits = outcome.hits
    return [hits.seqs.tolist(), hits.scores.tolist(), {n: v.tolist() for n, v in hits.raw.items()}]


async def test_a_filter_is_kept_to(snapshot):
    stage = FastForward(aggregate="max")
    outcome = await asked(snapshot, QUESTION, BM25, stage, Group(), documents=[1, 2])
    assert outcome.hits.seqs.tolist() == [3]
