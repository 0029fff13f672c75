import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from service.pipeline import run
from service.stages.group import Group
from tests.service.hand_made import Documents, Given, hits, scores, search

# Passages 1, 2, 3 are of document 10, passage 4 of document 20.
DOCUMENTS = np.array([10, 10, 10, 20])
OF = {1: 10, 2: 10, 3: 10, 4: 20}
FOUND = {1: 1.0, 2: 3.0, 3: 2.0, 4: 2.5}


def grouped(stage: Group) -> dict[int, float]:
    found = hits(FOUND)
    return scores(stage.group(found, np.array([OF[seq] for seq in found.seqs.tolist()])))


def test_a_document_stands_on_its_best_passage():
    assert grouped(Group()) == {2: 3.0, 4: 2.5}


def test_the_sum_of_its_best_passages():
    assert grouped(Group(method="sum", n=2)) == {2: 5.0, 4: 2.5}
    assert grouped(Group(method="sum", n=9)) == {2: 6.0, 4: 2.5}


def test_the_first_passage_found_in_it():
    assert grouped(Group(method="first")) == {4: 2.5, 1: 1.0}


async def test_it_asks_the_snapshot_whose_passages_they_are():
    outcome = await run([Given(found=FOUND), Group()], search(Documents(OF)))
    assert scores(outcome.hits) == {2: 3.0, 4: 2.5}
    assert outcome.hits.raw["given"].tolist() == [3.0, 2.5], "raw scores are those of the passage"
    assert [(account["in"], account["out"]) for account in outcome.accounts] == [(0, 4), (4, 2)]


async def test_no_hits_stay_none():
    outcome = await run([Given(), Group(method="sum")], search(Documents({})))
    assert len(outcome.hits) == 0


@given(st.dictionaries(st.integers(0, 30), st.sampled_from([0.0, 0.5, 1.0]), max_size=20))
@settings(max_examples=50)
def test_every_document_comes_once_with_its_maximum(found: dict[int, float]):
    passages = hits(found)
    documents = passages.seqs // 4
    got = Group().group(passages, documents)
    best = {doc: max(s for seq, s in found.items() if seq // 4 == doc) for doc in {seq // 4 for seq in found}}
    assert dict(zip((got.seqs // 4).tolist(), got.scores.tolist(), strict=True)) == best
    assert scores(got) == scores(got.best(len(got))), "in order"
