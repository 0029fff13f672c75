"""Learned sparse retrieval over HTTP, by an encoder whose weights can be seen: each word weighs 1."""

import asyncio
import gzip
import json
import math
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

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
from models.csr import Csr
from models.idf import idf_query
from service.pipeline import run
from service.snapshot import Snapshot
from service.stages import Sparse
from service.types import Search
from service.workers import Workers
from tests.nets import WordOverlapSparseEncoder, loading
from tests.running import Service, running

SEA = [
    {"id": "tide", "text": "the moon pulls the sea", "metadata": {"n": 1}},
    {"id": "cat", "text": "the cat sleeps", "metadata": {"n": 2}},
    {"id": "moon", "text": "the moon", "metadata": {"n": 3}},
]
ONLY = {"components": ["sparse"]}


async def scores(service: Service, query: str, **request: Any) -> dict[str, float]:
    hits = (await service.search(query, pipeline="sparse", **request))["hits"]
    return {hit["id"]: round(hit["score"], 3) for hit in hits}


async def terms(
    service: Service, query: str, document: str, **request: Any
) -> dict[str, tuple[float, float]]:
    """Weights in the question and in the passage by term."""
    hits = (await service.search(query, pipeline="sparse", explain=True, **request))["hits"]
    (found,) = [hit["explanation"]["sparse"] for hit in hits if hit["id"] == document]
    return {each["term"]: (round(each["query"], 3), round(each["passage"], 3)) for each in found}


async def test_passages_are_ranked_by_the_products_of_weights(service: Service):
    await service.make(**ONLY)
    await service.put(SEA)
    assert await scores(service, "the moon and the sea") == {"tide": 3.0, "moon": 2.0, "cat": 1.0}
    assert await scores(service, "sun") == {}
    assert await scores(service, "?!") == {}


async def test_what_is_replaced_or_deleted_is_not_found(service: Service):
    await service.make(**ONLY)
    await service.put(SEA)
    await service.put([{"id": "tide", "text": "the cat"}])
    assert await scores(service, "moon cat") == {"cat": 1.0, "moon": 1.0, "tide": 1.0}
    await service.ask("DELETE", "/v1/collections/c/documents/moon", 202)
    await service.index()
    assert await scores(service, "moon cat") == {"cat": 1.0, "tide": 1.0}


async def test_a_filter_is_kept_to_whatever_it_leaves(service: Service):
    await service.make(**ONLY)
    await service.put(SEA[:2])
    await service.put(SEA[2:])
    assert await scores(service, "the moon", filter={"n": {"gte": 2}}) == {"moon": 2.0, "cat": 1.0}
    assert await scores(service, "the moon", filter={"n": 9}) == {}


async def test_a_hit_is_explained_by_words_with_both_weights(tmp_path: Path):
    async with running(tmp_path, load=loading(sparse=Graded())) as service:
        service.load = loading(sparse=Graded())
        await service.make(**ONLY)
        await service.put(SEA)
        assert await terms(service, "the moon pulls", "moon") == {"moon": (4.0, 4.0), "the": (3.0, 3.0)}
        assert await scores(service, "the moon pulls", filter={"n": 3}) == {"moon": 25.0}


class Graded(WordOverlapSparseEncoder):
    """A word's weight is its length."""

    def forward(self, tokens: Sequence[Sequence[int]]) -> Csr:
        made = super().forward(tokens)
        return Csr(made.offsets, made.terms, np.array([len(w) for w in self.words(made.terms)], np.float32))


async def test_searches_at_the_same_time_share_forwards(tmp_path: Path):
    encoder = Counting()
    async with running(tmp_path, load=loading(sparse=encoder)) as service:
        await service.make(**ONLY)
        await service.put(SEA)
        await service.search("moon")
        encoder.forwards = 0
        await asyncio.gather(*(service.search(f"moon {n}") for n in range(8)))
        assert encoder.forwards <= 3


class Counting(WordOverlapSparseEncoder):
    forwards = 0

    def forward(self, tokens: Sequence[Sequence[int]]) -> Csr:
        self.forwards += 1
        return super().forward(tokens)

    def pieces(self, texts: Sequence[str]) -> Any:
        forwards, found = self.forwards, super().pieces(texts)
        self.forwards = forwards  # a real encoder needs none
        return found


def idf(passages: int, frequency: int) -> float:
    return round(math.log1p((passages - frequency + 0.5) / (frequency + 0.5)), 3)


async def test_a_question_weighed_by_idf_needs_no_net(tmp_path: Path):
    encoder = Counting()
    async with running(tmp_path, load=loading(sparse=encoder)) as service:
        await service.make(sparse_query="idf", **ONLY)
        await service.put(SEA)
        await service.search("moon")
        encoder.forwards = 0
        assert await terms(service, "the the moon", "moon") == {
            "moon": (idf(3, 2), 1.0),
            "the": (idf(3, 3), 1.0),
        }
        assert list(await scores(service, "cat the")) == ["cat", "tide", "moon"]
        assert encoder.forwards == 0


async def test_idf_is_of_the_live_passages_of_a_generation(service: Service):
    await service.make(sparse_query="idf", **ONLY)
    await service.put(SEA)
    await service.put([{"id": "cat", "text": "the sun"}, {"id": "rain", "text": "rain and moon"}])
    assert await terms(service, "moon the", "moon") == {"moon": (idf(4, 3), 1.0), "the": (idf(4, 3), 1.0)}
    before = await terms(service, "moon the", "moon", generation=1)
    assert before == {"moon": (idf(3, 2), 1.0), "the": (idf(3, 3), 1.0)}, "an older one keeps its own"


TABLE = {"moon": 3.0, "the": -1.0, "sea": 0.5}


def table(path: Path, weights: dict[str, float]) -> Path:
    path.write_bytes(gzip.compress(json.dumps(weights).encode()))
    return path


class Known(WordOverlapSparseEncoder):
    """Has a vocabulary to be asked for, and a table of its own."""

    @property
    def ids(self) -> dict[str, int]:
        return {word: self._term(word) for word in ("the", "moon", "sea", "cat", "pulls")}


class WithTable(Known):
    """Its table weighs questions, and its net must not be asked to."""

    idf = np.full(Known.vocabulary, 2.0, np.float32)

    def encode(self, texts: Any, kind: str = "document", **keys: Any) -> Csr:
        if kind == "document":
            return super().encode(texts, kind, **keys)
        (found,) = self.pieces(texts)
        return idf_query(found, self.idf)


async def test_a_table_of_the_settings_weighs_questions(tmp_path: Path):
    given = {"load": loading(sparse=Known()), "idf_tables": {"mine": table(tmp_path / "idf.json.gz", TABLE)}}
    async with running(tmp_path, **given) as service:
        assert "mine" in (await service.ask("GET", "/v1/limits"))["idf_tables"]
        await service.make(sparse_query="idf", sparse_idf="mine", **ONLY)
        await service.put(SEA)
        assert await terms(service, "the moon pulls", "tide") == {"moon": (3.0, 1.0), "pulls": (1.0, 1.0)}
        table(tmp_path / "idf.json.gz", {**TABLE, "moon": 1.0})
    async with running(tmp_path, **given) as service:
        problem = await service.search("moon", status=503)
        assert "made with the idf table 'mine' of fingerprint" in problem["detail"]


async def test_a_table_that_fits_another_vocabulary_is_refused(tmp_path: Path):
    given = {"idf_tables": {"mine": table(tmp_path / "idf.json.gz", {"Mond": 1.0})}}
    async with running(tmp_path, load=loading(sparse=Known()), **given) as service:
        await service.make(sparse_query="idf", sparse_idf="mine", **ONLY)
        await service.put(SEA)
        assert "weighs 'Mond'" in (await service.search("moon", status=503))["detail"]


async def test_the_table_of_the_encoder_weighs_questions_if_it_has_one(tmp_path: Path):
    encoder = Known()
    async with running(tmp_path, load=loading(sparse=encoder)) as service:
        await service.make(sparse_query="idf", sparse_idf="model", **ONLY)
        await service.put(SEA)
        assert "came without idf weights" in (await service.search("moon", status=503))["detail"]
        encoder.idf = np.full(encoder.vocabulary, 2.0, np.float32)
        assert await terms(service, "moon", "moon") == {"moon": (2.0, 1.0)}


async def test_table_and_idf_weigh_questions_together(tmp_path: Path):
    encoder = Known()
    async with running(tmp_path, load=loading(sparse=encoder)) as service:
        await service.make(sparse_query="both", **ONLY)
        await service.put(SEA)
        encoder.idf = np.full(encoder.vocabulary, 4.0, np.float32)
        found = await terms(service, "the moon", "moon")
        mean = {word: round(math.sqrt(4 * idf(3, n)), 2) for word, n in (("moon", 2), ("the", 3))}
        assert {word: round(weights[0], 2) for word, weights in found.items()} == mean


async def test_an_encoder_with_a_table_needs_no_settings_and_no_forward(tmp_path: Path):
    async with running(tmp_path, load=loading(sparse=WithTable())) as service:
        await service.make(**ONLY)
        await service.put(SEA)
        assert await terms(service, "the moon", "moon") == {"moon": (2.0, 1.0), "the": (2.0, 1.0)}


@pytest.mark.parametrize(
    ("schema", "sentence"),
    [
        ({"sparse_query": "idf", "sparse_idf": "yours"}, "there is no idf table 'yours' (there is mine)"),
        ({"sparse_query": "idf", "sparse_idf": "mine"}, "an idf table cannot be read"),
        ({"sparse_idf": "mine"}, "sparse_idf: a table of idf weights is for questions weighed by it"),
        ({"sparse_encoder": "/etc"}, "sparse_encoder '/etc' is not one of"),
        ({"sparse_quality": "/etc", "least_quality": 0.0}, "sparse_quality '/etc' is not one of itn"),
    ],
)
async def test_a_schema_that_cannot_work_is_refused(tmp_path: Path, schema: dict[str, Any], sentence: str):
    async with running(tmp_path, idf_tables={"mine": tmp_path / "gone.json"}) as service:
        assert sentence in (await service.ask("PUT", "/v1/collections/c", 422, json=schema))["detail"]


class Boundless(WordOverlapSparseEncoder):
    """Weighs more of a question than can be."""

    def finish(self, vectors: Csr, kind: str) -> Csr:
        terms = np.arange(50_000, dtype=np.int32)
        return Csr(np.array([0, len(terms)]), terms, np.ones(len(terms), np.float32))


async def test_a_question_of_too_many_terms_is_the_encoders_fault(tmp_path: Path):
    async with running(tmp_path, load=loading(sparse=Boundless())) as service:
        await service.make(components=["bm25", "sparse"])
        await service.put(SEA)
        assert (
            "a question of 50000 terms"
            in (await service.search("moon", status=503, pipeline="sparse"))["detail"]
        )
        assert (await service.search("moon"))["degraded"] == ["sparse"]


async def test_pruned_passages_are_counted_and_found_by_others(service: Service):
    schema = {"components": ["bm25", "sparse"], "sparse_quality": "itn", "least_quality": 0.5}
    await service.make(**schema)
    await service.put([*SEA, {"id": "poor", "text": "moon moon moon moon"}])
    (segment,) = (await service.ask("GET", "/v1/collections/c"))["segments"]
    assert (segment["rows"], segment["pruned_rows"]) == (4, 1)
    assert 'winnow_pruned_passages{collection="c"} 1.0' in (await service.client.get("/metrics")).text
    assert set(await scores(service, "moon")) == {"tide", "moon"}
    assert "poor" in await service.ids("moon", pipeline="bm25")


class Other(WordOverlapSparseEncoder):
    fingerprint = "other"


async def test_vectors_of_other_weights_are_not_compared_and_other_retrievers_go_on(tmp_path: Path):
    async with running(tmp_path) as service:
        await service.make()
        await service.put(SEA)
    async with running(tmp_path, load=loading(sparse=Other())) as service:
        problem = await service.search("moon", status=503, pipeline="sparse")
        assert "encoded with word-overlap-sparse, and" in problem["detail"]
        answer = await service.search("moon sea", pipeline="balanced", explain=True)
        assert answer["degraded"] == ["sparse"]
        assert answer["hits"][0]["id"] == "tide"
        assert answer["hits"][0]["explanation"]["sparse"] == []


async def test_a_sparse_encoder_in_use_is_loaded_before_it_is_ready(tmp_path: Path):
    asked = []

    def load(role: str, name: str) -> Any:
        asked.append((role, name))
        return loading()(role, name)

    async with running(tmp_path, encoders=("mine",)) as service:
        await service.make(sparse_encoder="mine", **ONLY)
        default = service.state.settings.default_encoders()
    async with running(tmp_path, load=load, encoders=("mine",)) as service:
        while service.state.warmup.pending:
            await asyncio.sleep(0.01)
    assert asked == [
        ("dense", default["encoder"]),
        *sorted([("sparse", default["sparse_encoder"]), ("sparse", "mine")]),
    ]


WORDS = ["moon", "sea", "tide", "rain", "sun", "cat"]
TEXTS = st.lists(st.lists(st.sampled_from(WORDS), max_size=5).map(" ".join), min_size=1, max_size=12)


@given(TEXTS, st.data(), st.sampled_from(["encoder", "idf"]), st.integers(1, 12))
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_any_segmentation_gives_the_same_hits(texts: list[str], data: st.DataObject, weighed: str, k: int):
    documents = [Document(id=str(number), text=text) for number, text in enumerate(texts)]
    cuts = sorted(data.draw(st.sets(st.integers(1, len(documents)))) | {len(documents)})
    gone = data.draw(st.sets(st.sampled_from([document.id for document in documents])))
    question = " ".join(data.draw(st.lists(st.sampled_from(WORDS), min_size=1, max_size=4)))
    schema = CollectionSchema(components=("sparse",), sparse_query=weighed)
    with TemporaryDirectory(dir="/dev/shm") as root:
        whole = hits(Path(root), "whole", schema, documents, [len(documents)], gone, k, question)
        assert hits(Path(root), "cut", schema, documents, cuts, gone, k, question) == whole
        assert hits(Path(root), "merged", schema, documents, cuts, gone, k, question, merge=True) == whole


def hits(
    root: Path,
    name: str,
    schema: CollectionSchema,
    documents: Sequence[Document],
    cuts: Sequence[int],
    gone: set[str],
    k: int,
    query: str,
    merge: bool = False,
) -> tuple[list[int], list[float]]:
    """Numbers and scores of what is found in a collection of segments that end at `cuts`."""
    create_collection(root, name, schema)
    encoder = Graded()
    writer, begin = Writer(collection_path(root, name)), 0
    for position, end in enumerate(cuts):
        writer.apply(
            Batch(position, documents=tuple(documents[begin:end])), CollectionEncoders(sparse=encoder)
        )
        begin = end
    writer.apply(Batch(len(cuts), ids=tuple(gone)), CollectionEncoders())
    if merge and len(writer._parts) > 1:
        joined = Merge("m", writer._parts)
        writer.take_in(joined, joined.run(writer.directory))
    writer.close()
    snapshot = Snapshot.open(writer.directory, read_current(writer.directory))
    return asyncio.run(found(snapshot, k, query, encoder))


async def found(
    snapshot: Snapshot, k: int, query: str, encoder: WordOverlapSparseEncoder
) -> tuple[list[int], list[float]]:
    workers = Workers(1)
    allowed = tuple(part.alive for part in snapshot.parts)
    search = Search(query, snapshot, allowed, math.inf, Direct(encoder), workers)
    outcome = await run((Sparse(k=k),), search)
    workers.close()
    return outcome.hits.seqs.tolist(), outcome.hits.scores.tolist()


class Direct:
    """Nets without a queue."""

    def __init__(self, encoder: WordOverlapSparseEncoder) -> None:
        self.encoder = encoder

    async def query_terms(self, name: str, fingerprint: str | None, query: str) -> Any:
        return self.encoder.encode([query], "query").row(0)

    async def pieces(self, name: str, fingerprint: str | None) -> Any:
        return self.encoder.pieces
