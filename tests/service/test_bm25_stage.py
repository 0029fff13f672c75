"""Lexical retrieval of passages and of whole documents, and what it gives to passages it is asked for."""

import asyncio
import math
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from indexer.batch import Batch
from indexer.collection import collection_path, create_collection
from indexer.document import Document
from indexer.encoders import CollectionEncoders
from indexer.merge import Merge
from indexer.segment.manifest import CollectionSchema, read_current
from indexer.writer import Writer
from service.errors import ComponentError
from service.pipeline import NOTHING
from service.snapshot import Snapshot
from service.stages import Bm25
from service.types import Hits, Nets, Search
from service.workers import Workers
from tests.running import Service

WHOLE = {"components": ["bm25"], "lexical_unit": "document", "passage_tokens": 16, "overlap_sentences": 0}


def sentence(*words: str) -> str:
    """Sixteen words, so that a passage holds one sentence."""
    return " ".join([*words, *["other"] * (16 - len(words))]) + "."


SPREAD = {"id": "spread", "text": " ".join([sentence("moon"), sentence("tide"), sentence("sea")])}
CLOSE = {"id": "close", "text": sentence("moon", "tide")}


def idf(number: int, frequency: int) -> float:
    return math.log1p((number - frequency + 0.5) / (frequency + 0.5))


async def test_words_that_are_far_apart_are_found_together_in_whole_documents(service: Service):
    await service.make(**WHOLE)
    await service.put([SPREAD, CLOSE])
    by_documents = (await service.search("moon tide sea", pipeline="bm25"))["hits"]
    # Of the two documents both have moon and tide; lengths are 48 and 16, on average 32.
    short, long = 1.2 * (0.25 + 0.75 * 16 / 32), 1.2 * (0.25 + 0.75 * 48 / 32)
    spread = (2 * idf(2, 2) + idf(2, 1)) / (1 + long)
    close = 2 * idf(2, 2) / (1 + short)
    assert [(hit["id"], hit["score"]) for hit in by_documents] == [
        ("spread", pytest.approx(spread, rel=1e-5)),
        ("close", pytest.approx(close, rel=1e-5)),
    ]
    assert by_documents[0]["scores"] == {"bm25": by_documents[0]["score"]}
    assert by_documents[0]["passage"]["text"] == sentence("sea"), "the rarest word stands in its best passage"
    stages = [{"stage": "bm25", "unit": "passage"}, {"stage": "group"}]
    assert await service.ids("moon tide sea", pipeline=stages) == ["close", "spread"]


async def test_a_document_is_one_hit_and_the_first_of_equal_passages_is_shown(service: Service):
    await service.make(**WHOLE)
    await service.put([{"id": "a", "text": " ".join([sentence(), sentence("moon"), sentence("moon")])}])
    answer = await service.search("moon", pipeline=[{"stage": "bm25"}])
    assert [hit["passage"]["start"] for hit in answer["hits"]] == [len(sentence()) + 1]


async def test_words_of_a_title_alone_show_the_first_passage(service: Service):
    await service.make(**WHOLE)
    await service.put([{"id": "a", "title": "moon", "text": " ".join([sentence(), sentence()])}])
    (hit,) = (await service.search("moon", pipeline="bm25"))["hits"]
    assert hit["passage"]["start"] == 0


async def test_sentences_that_passages_share_count_once(service: Service):
    six = "moon two three four five six."
    text = f"one two three four five six. {six} one two three four five six."
    await service.make(**{**WHOLE, "overlap_sentences": 1})
    await service.put([{"id": "a", "text": text}])
    (hit,) = (await service.search("moon", pipeline="bm25"))["hits"]
    assert hit["score"] == pytest.approx(idf(1, 1) / (1 + 1.2), rel=1e-5), "once, at the average length"


async def test_a_document_is_explained_by_the_terms_of_all_of_it(service: Service):
    await service.make(**WHOLE)
    await service.put([SPREAD, CLOSE])
    hits = (await service.search("moon tide sea", pipeline="bm25", explain=True))["hits"]
    assert [term["term"] for term in hits[0]["explanation"]["bm25"]] == ["sea", "moon", "tide"]
    for hit in hits:
        assert sum(term["score"] for term in hit["explanation"]["bm25"]) == pytest.approx(hit["score"])


async def test_a_filter_chooses_documents(service: Service):
    await service.make(**WHOLE)
    await service.put([{**SPREAD, "metadata": {"n": 1}}, {**CLOSE, "metadata": {"n": 2}}])
    assert await service.ids("moon tide sea", pipeline="bm25", filter={"n": 2}) == ["close"]
    assert await service.ids("moon tide sea", pipeline="bm25", filter={"n": 1}) == ["spread"]
    assert await service.ids("moon", pipeline="bm25", filter={"n": 3}) == []


async def test_full_syntax_finds_passages_all_the_same(service: Service):
    await service.make(**WHOLE)
    await service.put([SPREAD, CLOSE])
    answer = await service.search("moon OR sea", pipeline=[{"stage": "bm25", "query_syntax": "full"}])
    assert sorted(hit["id"] for hit in answer["hits"]) == ["close", "spread", "spread"]


async def test_whole_documents_cannot_be_scored_where_there_are_none(service: Service):
    await service.make(components=["bm25"], lexical_unit="passage")
    await service.put([CLOSE])
    problem = await service.search("moon", "c", 422, pipeline=[{"stage": "bm25", "unit": "document"}])
    assert problem["code"] == "component_missing"
    assert 'PUT /v1/collections/NAME {"lexical_unit": "document"}' in problem["detail"]


async def test_whole_documents_and_full_syntax_exclude_each_other(service: Service):
    await service.make(**WHOLE)
    stage = {"stage": "bm25", "unit": "document", "query_syntax": "full"}
    assert (
        "full syntax finds passages" in (await service.search("moon", "c", 422, pipeline=[stage]))["detail"]
    )


def test_an_empty_collection_is_asked_for_the_right_unit_too():
    stage = Bm25(unit="document")
    with pytest.raises(ComponentError, match='lexical_unit "passage"'):
        stage.unit_of(CollectionSchema(lexical_unit="passage"))
    assert stage.unit_of(CollectionSchema()) == "document"
    assert Bm25().unit_of(CollectionSchema()) == "document"
    assert Bm25().unit_of(CollectionSchema(lexical_unit="passage")) == "passage"
    assert Bm25(query_syntax="full").unit_of(CollectionSchema(lexical_unit="document")) == "passage"


async def test_full_syntax_scores_what_it_is_asked_for(service: Service):
    await service.make(components=["bm25"], passage_tokens=16, overlap_sentences=0)
    await service.put([SPREAD, CLOSE])
    snapshot = service.state.catalog.get("c").current
    found = await asked(snapshot, Bm25(query_syntax="full"), '"moon tide" OR sea')
    assert sorted(found.seqs.tolist()) == [2, 3]
    given_scores = await score(snapshot, Bm25(query_syntax="full"), '"moon tide" OR sea', [3, 0, 2, 3])
    by_seq = dict(zip(found.seqs.tolist(), found.scores.tolist(), strict=True))
    assert given_scores == [by_seq[3], 0, by_seq[2], by_seq[3]]
    assert await score(snapshot, Bm25(query_syntax="full"), "moon", []) == []


WORDS = ["moon", "sea", "tide", "rain", "sun", "cat"]
SENTENCES = st.lists(st.sampled_from(WORDS), min_size=1, max_size=14).map(lambda words: " ".join(words) + ".")
TEXTS = st.lists(st.lists(SENTENCES, max_size=5).map(" ".join), min_size=1, max_size=8)
TITLES = st.lists(st.sampled_from(WORDS), max_size=2).map(" ".join)
SHORT = CollectionSchema(
    components=("bm25",), language="none", lexical_unit="document", passage_tokens=16, overlap_sentences=1
)
SLOW = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow]}


@st.composite
def documents(draw: st.DrawFn) -> list[Document]:
    texts = draw(TEXTS)
    return [Document(id=str(number), title=draw(TITLES), text=text) for number, text in enumerate(texts)]


@given(documents(), st.data(), st.integers(1, 8), st.sampled_from(["passage", "document"]))
@settings(max_examples=12, **SLOW)
def test_any_segmentation_gives_the_same_hits(made: list[Document], data: st.DataObject, k: int, unit: str):
    cuts = sorted(data.draw(st.sets(st.integers(1, len(made)))) | {len(made)})
    gone = data.draw(st.sets(st.sampled_from([document.id for document in made])))
    query = " ".join(data.draw(st.lists(st.sampled_from(WORDS), min_size=1, max_size=4)))
    stage = Bm25(k=k, unit=unit, title_boost=data.draw(st.sampled_from([0.0, 1.0, 2.5])))
    with TemporaryDirectory(dir="/dev/shm") as root:
        whole = collection(Path(root), "whole", made, [len(made)], gone)
        cut = collection(Path(root), "cut", made, cuts, gone)
        merged = collection(Path(root), "merged", made, cuts, gone, merge=True)
        anew = collection(Path(root), "anew", [each for each in made if each.id not in gone], [], set())
        expected = listed(whole, run(whole, stage, query))
        assert listed(cut, run(cut, stage, query)) == expected
        assert listed(merged, run(merged, stage, query)) == expected
        assert listed(anew, run(anew, stage, query)) == expected


@given(documents(), st.data())
@settings(max_examples=25, **SLOW)
def test_a_document_scores_as_a_passage_of_its_own_and_stands_on_its_best(
    made: list[Document], data: st.DataObject
):
    query = " ".join(data.draw(st.lists(st.sampled_from(WORDS), min_size=1, max_size=4)))
    with TemporaryDirectory(dir="/dev/shm") as root:
        snapshot = collection(Path(root), "cut", made, [], set())
        by_document, by_passage = (run(snapshot, Bm25(unit=unit), query) for unit in ("document", "passage"))
        roomy = SHORT.model_copy(update={"passage_tokens": 8192})
        unbroken = collection(Path(root), "unbroken", made, [], set(), schema=roomy)
        of_unbroken = run(unbroken, Bm25(unit="passage"), query)
        ids = [name for name, _, _ in listed(snapshot, by_document)]
        assert (ids, by_document.scores.tolist()) == (
            [name for name, _, _ in listed(unbroken, of_unbroken)],
            of_unbroken.scores.tolist(),
        )
        keys = snapshot.document_keys(by_passage.seqs).tolist()
        best = dict(zip(keys[::-1], by_passage.seqs.tolist()[::-1], strict=True))
        firsts = snapshot.document_keys(by_document.seqs).tolist()
        assert by_document.seqs.tolist() == [best[key] for key in firsts]


@given(documents(), st.data(), st.sampled_from(["passage", "document"]))
@settings(max_examples=25, **SLOW)
def test_any_passage_scores_what_a_search_gives_it_or_its_document(
    made: list[Document], data: st.DataObject, unit: str
):
    cuts = sorted(data.draw(st.sets(st.integers(1, len(made)))) | {len(made)})
    query = " ".join(data.draw(st.lists(st.sampled_from(WORDS), min_size=1, max_size=4)))
    with TemporaryDirectory(dir="/dev/shm") as root:
        snapshot = collection(Path(root), "cut", made, cuts, set())
        every = np.concatenate([part.segment.store.seqs for part in snapshot.parts]).tolist()
        wanted = data.draw(st.lists(st.sampled_from(every), max_size=12))
        hits = run(snapshot, Bm25(unit=unit), query)
        keys = {
            "document": lambda seqs: snapshot.document_keys(np.array(seqs, np.int64)).tolist(),
            "passage": lambda seqs: list(seqs),
        }[unit]
        found = dict(zip(keys(hits.seqs.tolist()), hits.scores.tolist(), strict=True))
        given_scores = asyncio.run(score(snapshot, Bm25(unit=unit), query, wanted))
        assert given_scores == [found.get(key, 0) for key in keys(wanted)]


def collection(
    root: Path,
    name: str,
    made: Sequence[Document],
    cuts: Sequence[int],
    gone: set[str],
    merge: bool = False,
    schema: CollectionSchema = SHORT,
) -> Snapshot:
    """A collection of segments that end at `cuts`, of one if there are none, after some documents went."""
    create_collection(root, name, schema)
    writer, begin = Writer(collection_path(root, name)), 0
    for position, end in enumerate(cuts or [len(made)]):
        writer.apply(Batch(position, documents=tuple(made[begin:end])), CollectionEncoders())
        begin = end
    writer.apply(Batch(len(cuts) + 1, ids=tuple(gone)), CollectionEncoders())
    if merge and len(writer._parts) > 1:
        joined = Merge("m", writer._parts)
        writer.take_in(joined, joined.run(writer.directory))
    writer.close()
    return Snapshot.open(writer.directory, read_current(writer.directory))


def run(snapshot: Snapshot, stage: Bm25, query: str) -> Hits:
    return asyncio.run(asked(snapshot, stage, query))


async def asked(snapshot: Snapshot, stage: Bm25, query: str) -> Hits:
    workers = Workers(1)
    hits = await stage(search(snapshot, query, workers), NOTHING)
    workers.close()
    return hits


async def score(snapshot: Snapshot, stage: Bm25, query: str, seqs: Sequence[int]) -> list[float]:
    workers = Workers(1)
    found = await stage.score(search(snapshot, query, workers), np.array(seqs, np.int64))
    workers.close()
    assert found.dtype == np.float32
    return found.tolist()


def search(snapshot: Snapshot, query: str, workers: Workers) -> Search:
    allowed = tuple(part.alive for part in snapshot.parts)
    return Search(query, snapshot, allowed, math.inf, cast(Nets, None), workers)


def listed(snapshot: Snapshot, hits: Hits) -> list[tuple[str, Any, float]]:
    """Document, span of the passage and score of every hit."""
    found = []
    parts, rows = snapshot.locate(hits.seqs)
    for part, row, value in zip(parts.tolist(), rows.tolist(), hits.scores.tolist(), strict=True):
        store = snapshot.parts[part].segment.store
        found.append((store.id(int(store.document_of_row[row])), store.spans[row].tolist(), value))
    return found


async def test_passages_can_be_asked_for_all_the_same(service: Service):
    await service.make(**WHOLE)
    await service.put([SPREAD, CLOSE])
    hits = (await service.search("moon tide sea", pipeline="bm25", group_by="passage"))["hits"]
    assert [hit["id"] for hit in hits].count("spread") > 1
