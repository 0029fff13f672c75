import dataclasses
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from models.csr import Csr, concatenate, unit
from models.idf import idf_query
from models.load import SPLADE, resolve
from models.precision import fast_dtype
from models.sparse import SparseEncoder
from tests.models.sparse_folders import dense, splade
from tests.nets import VOCABULARY, WordOverlapSparseEncoder, tiny_sparse_encoder

TEXTS = ["the moon pulls the sea", "", "cat", "rain falls into the sea and the sea is water", "tide"]
CLS, SEP, MASK, UNK = (VOCABULARY.index(each) for each in ("[CLS]", "[SEP]", "[MASK]", "[UNK]"))


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_sparse_encoder(tmp_path_factory.mktemp("nets") / "tiny", max_tokens=12)


@pytest.fixture(scope="module")
def encoder(path: Path) -> SparseEncoder:
    return SparseEncoder.load(str(path), dtype="float32")


@pytest.fixture(scope="module")
def tiny() -> dict[str, SparseEncoder]:
    """SPLADE-tiny in both number formats."""
    return {kind: SparseEncoder.load(SPLADE, dtype=kind) for kind in ("float32", "bfloat16")}


def words(*tokens: str) -> list[int]:
    return [~CLS, *(VOCABULARY.index(token) for token in tokens), ~SEP]


def same(first: Csr, second: Csr) -> bool:
    fields = [each.name for each in dataclasses.fields(Csr)]
    return all(np.array_equal(getattr(first, name), getattr(second, name)) for name in fields)


def test_it_says_what_it_is(encoder: SparseEncoder, path: Path) -> None:
    assert (encoder.vocabulary, encoder.max_tokens) == (len(VOCABULARY), 12)
    assert (encoder.ceiling, encoder.dtype, encoder.idf) == (8.0, "float32", None)
    assert (encoder.name, encoder.fingerprint) == (str(path), resolve(str(path)).fingerprint)
    assert [encoder.ids[piece] for piece in VOCABULARY] == list(range(len(VOCABULARY)))


def test_tokens_can_be_read_again(encoder: SparseEncoder) -> None:
    assert encoder.text([CLS, VOCABULARY.index("the"), VOCABULARY.index("tide"), SEP]) == "the tide"
    with pytest.raises(ValueError, match=r"900 is no token of .*, whose tokens are 0 to 126"):
        encoder.text([900])


def test_special_tokens_stand_without_a_vote(encoder: SparseEncoder) -> None:
    assert encoder.tokenize(["The tides!", ""]) == [words("the", "tide", "##s", "!"), words()]


def test_special_tokens_that_a_text_spells_out_have_no_vote_either(encoder: SparseEncoder) -> None:
    assert encoder.tokenize(["sea [SEP] [MASK] 🌊"]) == [
        [~CLS, VOCABULARY.index("sea"), ~SEP, ~MASK, UNK, ~SEP]
    ]
    assert encoder.pieces(["sea [SEP] 🌊"])[0].tolist() == [VOCABULARY.index("sea")]


def test_a_long_text_is_cut_at_max_tokens(encoder: SparseEncoder) -> None:
    assert encoder.tokenize(["sea " * 50]) == [words(*["sea"] * 10)]


def test_rows_are_ascending_terms_above_zero_and_none_is_special(encoder: SparseEncoder) -> None:
    vectors = encoder.encode(TEXTS)
    assert len(vectors) == len(TEXTS)
    for terms, weights in vectors:
        assert (np.diff(terms) > 0).all()
        assert (weights > 0).all()
        assert (terms > MASK).all()
    assert (vectors.terms.dtype, vectors.weights.dtype) == (np.int32, np.float32)


def test_a_text_without_pieces_has_no_terms(encoder: SparseEncoder) -> None:
    assert encoder.encode(["", "  ", "[SEP]"]).offsets.tolist() == [0, 0, 0, 0]


def test_no_weight_passes_the_ceiling(path: Path) -> None:
    encoder = SparseEncoder.load(str(path), dtype="float32")
    encoder.ceiling = 0.5
    assert encoder.encode(TEXTS).weights.max() == 0.5


def test_a_batch_gives_what_single_texts_give(encoder: SparseEncoder) -> None:
    single = concatenate([encoder.encode([text]) for text in TEXTS])
    np.testing.assert_allclose(dense(encoder.encode(TEXTS)), dense(single), atol=1e-5)


def test_padding_changes_nothing(encoder: SparseEncoder) -> None:
    short, long = encoder.tokenize(["cat", "rain falls into the sea"])
    together, alone = encoder.forward([short, long]), encoder.forward([short])
    np.testing.assert_allclose(dense(together)[:1], dense(alone), atol=1e-5)


@pytest.mark.parametrize("budget", [1, 13, 1000])
def test_the_order_of_the_texts_is_kept_whatever_the_batches(encoder: SparseEncoder, budget: int) -> None:
    done: list[int] = []
    vectors = encoder.encode(TEXTS, budget=budget, progress=done.append)
    np.testing.assert_allclose(dense(vectors), dense(encoder.encode(TEXTS)), atol=1e-5)
    assert sum(done) == len(TEXTS)


def test_the_same_texts_give_the_same_bits(encoder: SparseEncoder, path: Path) -> None:
    assert same(encoder.encode(TEXTS), SparseEncoder.load(str(path), dtype="float32").encode(TEXTS))


def test_no_texts_give_no_vectors(encoder: SparseEncoder) -> None:
    assert len(encoder.encode([])) == 0
    assert encoder.offsets([]) == encoder.pieces([]) == encoder.tokenize([]) == []


def test_offsets_are_characters_of_the_whole_text(encoder: SparseEncoder) -> None:
    text = "The tides. " + "sea " * 30
    (spans,) = encoder.offsets([text])
    assert [text[start:end] for start, end in spans[:5]] == ["The", "tide", "s", ".", "sea"]
    assert len(spans) == 34


def test_pieces_are_distinct_and_cut_like_a_passage(encoder: SparseEncoder) -> None:
    (found,) = encoder.pieces(["the cat and the dog"])
    assert found.dtype == np.int32
    assert found.tolist() == sorted(VOCABULARY.index(word) for word in ("the", "cat", "and", "dog"))
    assert encoder.words(encoder.pieces(["sea " * 10 + "moon"])[0]) == ["sea"]


def test_a_question_by_idf_is_the_pieces_a_passage_has(encoder: SparseEncoder) -> None:
    idf = np.arange(len(VOCABULARY), dtype=np.float32)
    terms, weights = idf_query(encoder.pieces(["the the cat"])[0], idf).row(0)
    assert encoder.words(terms) == ["the", "cat"]
    assert weights.tolist() == terms.tolist()


def test_terms_are_shown_as_words_and_what_continues_one(encoder: SparseEncoder) -> None:
    assert encoder.words([VOCABULARY.index(piece) for piece in ("sea", "##s", "[SEP]")]) == [
        "sea",
        "##s",
        "[SEP]",
    ]


def test_threads_may_encode_together(encoder: SparseEncoder) -> None:
    expected = encoder.encode(TEXTS)
    with ThreadPoolExecutor(4) as pool:
        assert all(same(found, expected) for found in pool.map(encoder.encode, [TEXTS] * 20))


def test_a_vocabulary_that_16_bits_cannot_number_is_refused(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("models.sparse.LARGEST", 100)
    with pytest.raises(ValueError, match=f"tiny has a vocabulary of {len(VOCABULARY)} entries"):
        SparseEncoder.load(str(path))


def test_converted_weights_give_the_same_bits_and_the_same_fingerprint(path: Path, tmp_path: Path) -> None:
    plain = SparseEncoder.load(str(path), dtype="bfloat16")
    cached = SparseEncoder.load(str(path), dtype="bfloat16", cache=tmp_path)
    assert (cached.dtype, cached.fingerprint) == ("bfloat16", plain.fingerprint)
    assert same(cached.encode(TEXTS), plain.encode(TEXTS))


def test_a_pickle_beside_the_weights_is_neither_read_nor_counted_nor_copied(tmp_path: Path) -> None:
    net = tiny_sparse_encoder(tmp_path / "net")
    before = resolve(str(net)).fingerprint
    (net / "heads.pt").write_bytes(b"no pickle at all")
    assert SparseEncoder.load(str(net), dtype="bfloat16", cache=tmp_path / "cache").fingerprint == before
    assert not list((tmp_path / "cache").rglob("heads.pt"))


def test_loading_and_encoding_print_nothing(
    path: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    layout = splade(tmp_path)
    capfd.readouterr()
    for net in (path, layout):
        encoder = SparseEncoder.load(str(net))
        encoder.encode(["sea " * 1000])
        encoder.offsets(["sea " * 1000])
    assert capfd.readouterr() == ("", "")


def test_the_net_without_torch_gives_the_set_of_words() -> None:
    encoder = WordOverlapSparseEncoder()
    first, second = encoder.encode(["The cat, the dog", "A dog"])
    assert encoder.words(first[0]) == encoder.words(np.sort(first[0]))
    assert set(encoder.words(first[0])) == {"the", "cat", "dog"}
    assert first[1].tolist() == [1.0] * 3
    assert len(set(first[0]) & set(second[0])) == 1


def test_the_default_weighs_questions_by_a_table() -> None:
    encoder = SparseEncoder.load()
    terms, weights = encoder.encode(["how do tides form"], "query").row(0)
    assert sorted(encoder.words(terms)) == ["do", "form", "how", "tides"]
    assert encoder.words(terms[[np.argmax(weights)]]) == ["tides"]


def test_splade_tiny_expands_and_leaves_special_tokens_out(tiny: dict[str, SparseEncoder]) -> None:
    encoder = tiny["float32"]
    assert (encoder.vocabulary, encoder.max_tokens) == (30_522, 512)
    terms, weights = encoder.encode(["how do tides form"], "query").row(0)
    heaviest = encoder.words(terms[np.argsort(-weights)])[:5]
    assert "tide" in heaviest
    assert "sea" in heaviest
    assert not set(encoder.words(terms)) & {"[CLS]", "[SEP]", "[PAD]", "[UNK]", "[MASK]"}


def test_splade_tiny_in_bfloat16_means_the_same(tiny: dict[str, SparseEncoder]) -> None:
    texts = ["how do tides form", "The moon's gravity raises and lowers the sea. " * 20]
    full, half = (dense(unit(tiny[kind].encode(texts)), 30_522) for kind in ("float32", "bfloat16"))
    for first, second in zip(full, half, strict=True):
        assert first @ second > 0.999


def test_bfloat16_is_chosen_where_the_device_computes_in_it() -> None:
    assert SparseEncoder.load().dtype == fast_dtype("cpu")
