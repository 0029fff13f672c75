"""What a segment holds of the documents it was built from."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from indexer.build import build_segment
from indexer.document import Document
from indexer.encoders import CollectionEncoders, Encoders, WrongEncoder
from indexer.passage_keys import SAMPLES, key_centre
from indexer.segment.analyzer import Analyzer
from indexer.segment.manifest import CollectionSchema, SegmentEntry
from indexer.segment.segment import Segment, open_segment, verify_files
from models.csr import Csr
from tests.nets import (
    WordOverlapEncoder,
    WordOverlapKeysNet,
    WordOverlapSparseEncoder,
    loading,
    word_overlap,
)

TIDES = Document(
    id="t", title="The tides", text="Moon pulls sea. Sea rises twice. Sun pulls too.", metadata={"y": 1}
)
CATS = Document(id="c", text="Cats sleep.")
SLEEPY = Document(id="s", text="A sea cat sleeps twice.")


@pytest.fixture(autouse=True)
def collection(tmp_path: Path) -> None:
    (tmp_path / "segments").mkdir()


def build(
    tmp_path: Path, *documents: Document, first_seq: int = 0, **schema: object
) -> tuple[SegmentEntry, Segment]:
    settings = CollectionSchema.model_validate({"language": "none", "passage_tokens": 16} | schema)
    encoders = Encoders(word_overlap).of(settings, {})
    entry = build_segment(
        tmp_path, "one", documents, first_seq, settings, encoders, Analyzer(settings.language)
    )
    return entry, open_segment(tmp_path / "segments" / "one", entry)


def passages(segment: Segment) -> list[str]:
    numbers = segment.store.document_of_row.tolist()
    texts = [segment.store.document(number)["text"] for number in numbers]
    return [text[begin:end] for text, (begin, end) in zip(texts, segment.store.spans.tolist(), strict=True)]


def test_documents_become_numbered_passages(tmp_path: Path):
    long = Document(id="l", text="One two three four five six. " * 4)
    entry, segment = build(tmp_path, TIDES, long, CATS, first_seq=100)
    assert (entry.rows, entry.documents) == (5, 3)
    assert (entry.first_seq, entry.last_seq) == (100, 104)
    assert segment.store.seqs.tolist() == [100, 101, 102, 103, 104]
    assert segment.store.document_of_row.tolist() == [0, 1, 1, 1, 2]
    two = "One two three four five six. One two three four five six."
    assert passages(segment) == [TIDES.text, two, two, two, CATS.text]
    assert segment.store.document(0) == TIDES.model_dump()


def test_every_file_is_described_and_whole(tmp_path: Path):
    entry, segment = build(tmp_path, TIDES)
    assert set(entry.files) == {path.name for path in segment.path.iterdir()}
    verify_files(segment.path, entry.files)


def test_each_passage_carries_the_terms_of_its_title(tmp_path: Path):
    document = Document(id="a", title="Old sea", text="One two three four five six seven eight. " * 3)
    _, segment = build(tmp_path, document)
    assert segment.lexical is not None
    assert segment.lexical.title_lengths.tolist() == [2, 2]
    assert segment.lexical.body_lengths.tolist() == [16, 16]
    rows, tf, title_tf = segment.lexical.postings(int(segment.lexical.lookup(["sea"])[0]))
    assert (rows.tolist(), tf.tolist(), title_tf.tolist()) == ([0, 1], [0, 0], [1, 1])


def test_whole_documents_have_their_terms_once(tmp_path: Path):
    text = "One two three four five six. Sea eight nine ten. One two three four five six seven eight."
    document = Document(id="a", title="Old sea", text=text)
    _, segment = build(tmp_path, CATS, document, lexical_unit="document")
    assert segment.store.document_of_row.tolist() == [0, 1, 1]
    assert "Sea eight" in passages(segment)[1]
    assert "Sea eight" in passages(segment)[2], "the passages overlap"
    whole = segment.document_lexical
    assert whole is not None
    assert (whole.body_lengths.tolist(), whole.title_lengths.tolist()) == ([2, 18], [0, 2])
    rows, tf, title_tf = whole.postings(int(whole.lookup(["sea"])[0]))
    assert (rows.tolist(), tf.tolist(), title_tf.tolist()) == ([1], [1], [1])


def test_vectors_are_of_title_and_passage_together(tmp_path: Path):
    _, segment = build(tmp_path, TIDES, CATS)
    assert segment.dense is not None
    query = WordOverlapEncoder().encode(["The tides " + TIDES.text])[0]
    scores = segment.dense.scores(query, np.arange(2))
    assert scores[0] == pytest.approx(1.0, abs=0.01)
    assert scores[1] < 0.2


def test_vectors_are_as_coarse_as_the_schema_says_and_shared_within_a_document(tmp_path: Path):
    document = Document(id="a", text="Sea tide moon rain sun. " * 6 + "Cats sleep all day long.")
    given = (document, document.model_copy(update={"id": "b"}))
    _, apart = build(tmp_path, *given, overlap_sentences=0, dense_precision="int8")
    _, shared = build(tmp_path, *given, overlap_sentences=0, dense_coalescing=0.1)
    assert apart.dense is not None
    assert shared.dense is not None
    assert (apart.dense.vectors, apart.dense.stored.codes.dtype) == (6, np.int8)
    assert (shared.dense.vectors, shared.dense.stored.codes.dtype) == (4, np.uint16)
    assert shared.dense.vector_of_row.tolist() == [0, 0, 1, 2, 2, 3], "documents share none"
    assert passages(shared) == passages(apart), "passages are as they were"


def words(segment: Segment, row: int) -> set[str]:
    """Which words of the tests have a weight in a passage's sparse vector."""
    assert segment.sparse is not None
    _, terms, _ = segment.sparse.vectors(np.array([row]))
    known = f"{TIDES.title} {TIDES.text} {CATS.text} {SLEEPY.text}".lower().replace(".", "").split()
    return {word for word in known if WordOverlapSparseEncoder().pieces([word])[0][0] in terms}


def test_by_late_chunking_a_passage_is_a_part_of_its_document_and_the_first_has_the_title(tmp_path: Path):
    long = Document(id="l", title="Tides", text="One two three four five six. " * 4)
    _, segment = build(tmp_path, long, components=["dense"], chunking="late")
    six = "One two three four five six."
    first, second = WordOverlapEncoder().encode([f"Tides {six} {six}", f"{six} {six}"])
    assert segment.dense is not None
    assert segment.dense.rows_as_float(np.arange(2)) == pytest.approx(np.stack([first, second]), abs=0.01)


def test_late_chunking_is_refused_where_the_encoder_cannot():
    class Last(WordOverlapEncoder):
        supports_late_chunking = False

    with pytest.raises(WrongEncoder, match='"chunking": "separate"'):
        Encoders(loading(dense=Last())).of(CollectionSchema(chunking="late"), {})


def test_token_vectors_are_of_title_and_passage_and_pooled_as_the_schema_says(tmp_path: Path):
    again = Document(id="a", title="Tides", text="moon moon sea moon")
    for pooling, vectors in (("none", 5), ("words", 3), ("hierarchical", 3), ("clusters", 2)):
        _, segment = build(tmp_path, again, components=["dense", "late"], late_pooling=pooling)
        assert segment.late is not None
        assert (segment.late.rows, segment.late.vectors) == (1, vectors), pooling
        assert len(segment.late.pieces(0)) == 5
        assert segment.late.labels(0).max() == vectors - 1


def test_sparse_vectors_are_of_title_and_passage_together(tmp_path: Path):
    _, segment = build(tmp_path, TIDES, CATS)
    assert words(segment, 0) == {"the", "tides", "moon", "pulls", "sea", "rises", "twice", "sun", "too"}
    assert words(segment, 1) == {"cats", "sleep"}


class Graded(WordOverlapSparseEncoder):
    """A word's weight is its length."""

    def forward(self, tokens: Sequence[Sequence[int]]) -> Csr:
        made = super().forward(tokens)
        return Csr(made.offsets, made.terms, np.array([len(w) for w in self.words(made.terms)], np.float32))


def test_a_sparse_vector_keeps_its_largest_weights(tmp_path: Path):
    schema = CollectionSchema(components=("sparse",), sparse_terms=2, sparse_threshold=5.0)
    encoders = CollectionEncoders(sparse=Graded())
    entry = build_segment(tmp_path, "one", [SLEEPY, CATS], 0, schema, encoders, Analyzer("en"))
    segment = open_segment(tmp_path / "segments" / "one", entry)
    assert words(segment, 0) == {"sleeps", "twice"}
    assert words(segment, 1) == {"sleep"}


def test_passages_of_little_quality_have_no_sparse_vector_and_are_on_record(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    empty = Document(id="e", text="word word word word")
    caplog.set_level("INFO")
    judged = {"components": ["bm25", "sparse"], "sparse_quality": "itn", "least_quality": 0.5}
    entry, segment = build(tmp_path, CATS, empty, sparse_query="idf", **judged)
    assert entry.pruned_rows == 1
    assert "1 of 2 passages" in caplog.text
    assert segment.quality is not None
    assert segment.quality.values.tolist() == [1.0, 0.25]
    assert segment.quality.pruned.tolist() == [False, True]
    assert words(segment, 0) == {"cats", "sleep"}
    assert words(segment, 1) == set()
    assert segment.lexical is not None
    assert segment.lexical.body_lengths.tolist() == [2, 4]


def test_all_passages_may_be_pruned(tmp_path: Path):
    judged = {"components": ["sparse"], "sparse_quality": "itn", "least_quality": 2.0}
    entry, segment = build(tmp_path, CATS, TIDES, **judged)
    assert (entry.pruned_rows, words(segment, 0), words(segment, 1)) == (2, set(), set())


@pytest.mark.parametrize("weighed", ["idf", "both"])
def test_pieces_are_kept_for_questions_weighed_by_idf(tmp_path: Path, weighed: str):
    _, segment = build(tmp_path, TIDES, CATS, sparse_query="encoder")
    assert segment.sparse is not None
    assert segment.sparse.pieces is None
    _, segment = build(tmp_path, TIDES, CATS, sparse_query=weighed)
    assert segment.sparse is not None
    (moon,), (sea,) = WordOverlapSparseEncoder().pieces(["moon", "sea"])
    assert segment.sparse.piece_frequencies()[[moon, sea]].tolist() == [1, 1]


def test_a_long_title_is_clipped_so_that_the_passage_is_read(tmp_path: Path):
    class Reading(WordOverlapEncoder):
        def encode(self, texts, **options):
            self.read = texts
            return super().encode(texts, **options)

    encoder = Reading()
    encoder.max_tokens = 13  # 11 beside two special ones: 3 for the title, so 8 for the passage
    document = Document(id="a", title="w " * 500, text="one two three four five six. Then it ends")
    schema, encoders = CollectionSchema(components=("dense",)), CollectionEncoders(dense=encoder)
    build_segment(tmp_path, "one", [document], 0, schema, encoders, Analyzer("none"))
    assert encoder.read == ["w w w one two three four five six.", "w w w Then it ends"]


def test_a_title_costs_a_passage_nothing_while_both_can_be_read(tmp_path: Path):
    _, segment = build(tmp_path, Document(id="a", title="Five words are its title", text="w " * 16))
    assert segment.rows == 1


def test_components_decide_what_is_written(tmp_path: Path):
    entry, segment = build(tmp_path, TIDES, components=["bm25"], lexical_unit="passage")
    assert segment.dense is None
    assert segment.sparse is None
    assert set(entry.files) == {"store.bin", "columns.bin", "lexical.bin"}
    entry, segment = build(tmp_path, TIDES, components=["dense"])
    assert set(entry.files) == {"store.bin", "columns.bin", "dense.bin"}
    entry, segment = build(tmp_path, TIDES, components=["sparse"])
    assert set(entry.files) == {"store.bin", "columns.bin", "sparse.bin"}
    entry, segment = build(tmp_path, TIDES, components=["dense", "late"])
    assert set(entry.files) == {"store.bin", "columns.bin", "dense.bin", "late.bin"}
    entry, segment = build(tmp_path, TIDES, components=["bm25", "keys"], lexical_unit="passage")
    assert set(entry.files) == {"store.bin", "columns.bin", "lexical.bin", "keys.bin"}
    entry, segment = build(tmp_path, TIDES, components=["bm25"], lexical_unit="document")
    assert set(entry.files) == {"store.bin", "columns.bin", "lexical.bin", "documents.bin"}
    entry, segment = build(tmp_path, TIDES, components=["sparse"], lexical_unit="document")
    assert set(entry.files) == {"store.bin", "columns.bin", "sparse.bin"}


def test_an_interrupted_build_is_replaced(tmp_path: Path):
    left = tmp_path / "segments" / "one" / "half"
    left.parent.mkdir()
    left.write_bytes(b"rubbish")
    entry, _ = build(tmp_path, CATS)
    assert "half" not in entry.files
    assert not left.exists()


def test_empty_texts_are_documents_too(tmp_path: Path):
    entry, segment = build(tmp_path, Document(id="e", text=""), Document(id="s", title=" ", text=" \n"))
    assert entry.rows == 2
    assert passages(segment) == ["", " \n"]


def test_progress_counts_passages(tmp_path: Path):
    heard: list[tuple[int, int]] = []
    build_segment(
        tmp_path,
        "one",
        [TIDES, CATS],
        0,
        CollectionSchema(),
        Encoders(word_overlap).of(CollectionSchema(), {}),
        Analyzer("en"),
        lambda done, total: heard.append((done, total)),
    )
    assert heard[-1] == (4, 4), "two passages, each by two encoders"


def test_keys_are_of_whole_titles_and_passages_as_they_are_stored(tmp_path: Path):
    net, text = WordOverlapKeysNet("whole titles"), "  Moon pulls sea. Sea rises twice.\n\nSun pulls too. "
    long = Document(id="l", title=" five words are its title ", text=text)
    schema = CollectionSchema(language="none", components=("dense", "keys"), overlap_sentences=0)
    schema = schema.model_copy(update={"passage_tokens": 6})
    encoders = Encoders(loading(in_context=net)).of(schema, {})
    entry = build_segment(tmp_path, "one", [long, CATS], 0, schema, encoders, Analyzer("none"))
    segment = open_segment(tmp_path / "segments" / "one", entry)
    pairs = list(zip([long.title, long.title, ""], passages(segment), strict=True))
    assert net.batches == [list(SAMPLES), pairs]
    assert segment.keys is not None
    assert (segment.keys.rows, segment.keys.kv_heads, segment.keys.head_dim) == (3, 3, 64)
    for row, cut in enumerate(net.document_tokens(pairs)):  # four words of the title, and the passage
        assert segment.keys.keys(row) == pytest.approx(net.keys(cut.ids), abs=1 / 250)
    assert segment.keys.lengths(np.arange(3)).tolist() == [4 + 6, 4 + 3, 2]


def test_what_reads_in_context_has_no_part_in_cutting(tmp_path: Path):
    document = Document(id="a", text="Moon pulls sea. " * 40)
    cuts = [
        passages(build(tmp_path, document, components=components)[1])
        for components in (["dense"], ["dense", "keys"])
    ]
    assert cuts[0] == cuts[1]


def test_passages_are_read_some_at_a_time_and_progress_counts_them(tmp_path: Path):
    net, heard = WordOverlapKeysNet("some at a time"), []
    documents = [Document(id=str(n), text=f"Tide {n}.") for n in range(300)]
    schema = CollectionSchema(language="none", components=("dense", "keys"))
    encoders = Encoders(loading(in_context=net)).of(schema, {})
    arguments = (tmp_path, "one", documents, 0, schema, encoders, Analyzer("none"))
    build_segment(*arguments, progress=lambda done, total: heard.append((done, total)))
    assert [len(batch) for batch in net.batches] == [len(SAMPLES), 128, 128, 44]
    assert heard == [(300, 600), (428, 600), (556, 600), (600, 600)]


def test_keys_say_how_large_they_are_before_they_are_made(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    class Failing(WordOverlapKeysNet):
        def encode_keys(self, documents, *, progress=None):
            raise RuntimeError("no keys today")

    long = Document(id="l", text="word " * 17)
    schema = CollectionSchema(language="none", components=("bm25", "keys"))
    encoders = Encoders(loading(in_context=Failing())).of(schema, {})
    with caplog.at_level("INFO"), pytest.raises(RuntimeError, match="no keys today"):
        build_segment(tmp_path, "one", [CATS, long], 0, schema, encoders, Analyzer("none"))
    # 2 and 16 words of three keys of 66 bytes; where rows begin and end, their centre's number; the centre
    assert (
        "keys of 2 passages (of which 1 are longer than is read), 18 tokens, take 4364 bytes" in caplog.text
    )


def test_the_centre_of_keys_is_of_the_net_and_made_once():
    net = WordOverlapKeysNet("centred")
    centre = key_centre(net)
    everything = [number for cut in net.document_tokens(SAMPLES) for number in cut.ids]
    shares = np.bincount(everything, minlength=64) / len(everything)
    assert centre == pytest.approx(np.stack([shares] * 3))
    assert key_centre(net) is centre
    assert net.batches == [list(SAMPLES)]


def test_another_language_model_is_refused():
    schema = CollectionSchema(components=("bm25", "keys"), in_context_model="lm")
    made = Encoders(word_overlap).of(schema, {})
    assert made.fingerprints() == {"in_context": "word-overlap-keys-64"}
    other = Encoders(loading(in_context=WordOverlapKeysNet("another")))
    with pytest.raises(WrongEncoder, match=r"another version of lm .*word-overlap-keys-64; another is"):
        other.of(schema, made.fingerprints())
