from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from models.dense import DenseEncoder
from models.late import LateEncoder
from models.precision import fast_dtype
from tests.models.late_folders import multi_vector, plain, without_special_tokens
from tests.nets import VOCABULARY, tiny_encoder

TEXTS = ["the moon pulls the sea", "", "cat!", "rain falls into the sea and the sea is water", "...", "tide"]
CLS, SEP, DOT, UNK = (VOCABULARY.index(each) for each in ("[CLS]", "[SEP]", ".", "[UNK]"))
FILLED = {"query_expansion": {"strategy": "fixed", "attend": False, "length": 12}}


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_encoder(tmp_path_factory.mktemp("nets") / "tiny", max_tokens=12)


@pytest.fixture(scope="module")
def encoder(path: Path) -> LateEncoder:
    return LateEncoder.load(str(path), dtype="float32")


@pytest.fixture(scope="module")
def colbert(tmp_path_factory: pytest.TempPathFactory) -> LateEncoder:
    return LateEncoder.load(str(multi_vector(tmp_path_factory.mktemp("nets"), **FILLED)), dtype="float32")


@pytest.fixture(scope="module")
def minilm() -> dict[str, LateEncoder]:
    return {"float32": LateEncoder.load(dtype="float32"), "bfloat16": LateEncoder.load(dtype="bfloat16")}


def words(*tokens: str) -> list[int]:
    return [CLS, *(VOCABULARY.index(token) for token in tokens), SEP]


def maxsim(question: np.ndarray, passage: np.ndarray) -> float:
    return float((question @ passage.T).max(1).mean())


def test_it_says_what_it_is(encoder: LateEncoder, path: Path) -> None:
    assert (encoder.dim, encoder.max_tokens, encoder.dtype) == (32, 12, "float32")
    assert encoder.name == str(path)
    assert len(encoder.fingerprint) == 16


def test_punctuation_of_passages_gets_no_vector_and_that_of_questions_does(encoder: LateEncoder) -> None:
    (passage,), (question,) = encoder.tokenize(["The tides."]), encoder.tokenize(["The tides."], "query")
    assert question == words("the", "tide", "##s", ".")
    assert passage == [~DOT if each == DOT else each for each in question]


def test_a_long_text_is_cut_at_max_tokens(encoder: LateEncoder) -> None:
    assert encoder.tokenize(["sea " * 50]) == [words(*["sea"] * 10)]


def test_a_question_that_is_cut_is_said_to_be(encoder: LateEncoder, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO", "models.late"):
        encoder.tokenize(["sea", "sea " * 10, "sea " * 50], "query")
        encoder.tokenize(["sea " * 50], "document")
    assert [record.getMessage() for record in caplog.records] == [
        f"{encoder.name} cuts 1 of 3 questions to 12 tokens"
    ]


@pytest.mark.parametrize("kind", ["query", "document"])
@pytest.mark.parametrize("net", ["encoder", "colbert"])
def test_every_row_has_unit_length_and_is_a_piece_of_the_text(
    kind: str, net: str, request: pytest.FixtureRequest
) -> None:
    encoder: LateEncoder = request.getfixturevalue(net)
    for rows, pieces in zip(encoder.encode(TEXTS, kind), encoder.pieces(TEXTS, kind), strict=True):
        assert rows.dtype == np.float32
        assert rows.shape == (len(pieces.ids), encoder.dim)
        assert len(rows) >= 1
        np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1.0, atol=1e-6)


def test_pieces_are_tokens_and_the_characters_they_stand_for(encoder: LateEncoder) -> None:
    text = "Ünder  the 🌊, tides."
    (pieces,) = encoder.pieces([text])
    assert (pieces.ids.dtype, pieces.spans.dtype) == (np.int32, np.int64)
    written = ["", "Ü", "n", "d", "er", "the", "🌊", "tide", "s", ""]
    assert [text[begin:end] for begin, end in pieces.spans] == written
    assert encoder.words(pieces.ids) == [
        "[CLS]", "u", "##n", "##d", "##er", "the", "[UNK]", "tide", "##s", "[SEP]",
    ]  # fmt: skip
    assert encoder.pieces([""])[0].spans.tolist() == [[0, 0], [0, 0]]


def test_markers_shift_no_characters(colbert: LateEncoder) -> None:
    assert colbert.pieces(["cat sea"])[0].spans.tolist() == [[0, 0], [0, 0], [0, 3], [4, 7], [0, 0]]


def test_a_text_of_punctuation_keeps_its_special_tokens(encoder: LateEncoder) -> None:
    assert encoder.tokenize(["..."]) == [[CLS, ~DOT, ~DOT, ~DOT, SEP]]
    assert [len(rows) for rows in encoder.encode(["...", ""])] == [2, 2]


def test_a_net_without_special_tokens_gives_every_text_a_row(tmp_path: Path) -> None:
    path = without_special_tokens(plain(tmp_path / "net"))
    encoder = LateEncoder.load(str(path), dtype="float32")
    assert encoder.tokenize(["sea.", "..", ""]) == [
        [VOCABULARY.index("sea"), ~DOT],
        [DOT, DOT],
        [VOCABULARY.index("[PAD]")],
    ]
    assert [len(rows) for rows in encoder.encode(["sea.", "..", ""])] == [1, 2, 1]
    assert [len(each.ids) for each in encoder.pieces(["sea.", "..", ""])] == [1, 2, 1]


@pytest.mark.parametrize("kind", ["query", "document"])
@pytest.mark.parametrize("net", ["encoder", "colbert"])
@pytest.mark.parametrize("budget", [1, 13, 1000])
def test_the_order_of_the_texts_is_kept_whatever_the_batches(
    kind: str, net: str, budget: int, request: pytest.FixtureRequest
) -> None:
    encoder: LateEncoder = request.getfixturevalue(net)
    done: list[int] = []
    together = encoder.encode(TEXTS, kind, budget=budget, progress=done.append)
    assert sum(done) == len(TEXTS)
    for text, rows in zip(TEXTS, together, strict=True):
        np.testing.assert_allclose(rows, encoder.encode([text], kind)[0], atol=1e-5)


def test_a_forward_gives_an_array_a_text(encoder: LateEncoder) -> None:
    found = encoder.forward(encoder.tokenize(["cat", "sea"]))
    assert (found.dtype, found.shape) == (np.object_, (2,))
    assert [rows.shape for rows in found] == [(3, 32), (3, 32)]


def test_the_same_texts_give_the_same_bits(encoder: LateEncoder, path: Path) -> None:
    again = LateEncoder.load(str(path), dtype="float32")
    assert again.fingerprint == encoder.fingerprint
    for one, other in zip(encoder.encode(TEXTS), again.encode(TEXTS), strict=True):
        assert np.array_equal(one, other)


def test_no_texts_give_no_rows(encoder: LateEncoder) -> None:
    assert encoder.encode([]) == encoder.pieces([]) == encoder.offsets([]) == []


def test_offsets_are_characters_of_the_whole_text(encoder: LateEncoder) -> None:
    (spans,) = encoder.offsets(["sea. " * 30])
    assert spans.shape == (60, 2)
    assert spans[:2].tolist() == [[0, 3], [3, 4]]


def test_threads_may_tokenise_together(encoder: LateEncoder) -> None:
    expected = encoder.tokenize(TEXTS)
    with ThreadPoolExecutor(4) as pool:
        assert all(tokens == expected for tokens in pool.map(encoder.tokenize, [TEXTS] * 50))


def test_loading_and_encoding_print_nothing(path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    encoder = LateEncoder.load(str(path))
    encoder.encode(["sea " * 1000])
    encoder.pieces(["sea " * 1000])
    assert capfd.readouterr() == ("", "")


def test_minilm_states_rank_the_related_text_higher_in_either_number_format(
    minilm: dict[str, LateEncoder],
) -> None:
    texts = ["The moon's gravity raises and lowers the sea.", "Knead the dough and let it rise for an hour."]
    for net in minilm.values():
        (question,) = net.encode(["how do tides form?"], "query")
        related, unrelated = (maxsim(question, passage) for passage in net.encode(texts))
        assert related > unrelated + 0.2
    assert (minilm["float32"].dim, minilm["float32"].max_tokens) == (384, 256)
    assert LateEncoder.load().dtype == fast_dtype("cpu")


def test_minilm_in_bfloat16_means_the_same_whatever_the_batch(minilm: dict[str, LateEncoder]) -> None:
    texts = ["how do tides form", "", "The moon's gravity raises and lowers the sea. " * 20]
    exact, rounded = (minilm[each].encode(texts) for each in ("float32", "bfloat16"))
    for text, one, other in zip(texts, exact, rounded, strict=True):
        assert (one * other).sum(1).min() >= 0.999
        np.testing.assert_allclose(minilm["bfloat16"].encode([text])[0], other, atol=1e-2)


def test_the_vector_of_a_text_is_that_of_the_dense_encoder(path: Path, encoder: LateEncoder) -> None:
    dense = DenseEncoder.load(str(path), dtype="float32")
    made = encoder.vectors(encoder.tokenize(TEXTS, "query"), sentences=True)
    assert encoder.pooled == dense.fingerprint
    assert np.stack([each.sentence for each in made]) == pytest.approx(dense.encode(TEXTS, "query"), abs=1e-5)
    rows = encoder.forward(encoder.tokenize(TEXTS, "query"))
    assert all(np.array_equal(each.tokens, row) for each, row in zip(made, rows, strict=True))


def test_a_multi_vector_encoder_has_no_vector_of_a_text(colbert: LateEncoder) -> None:
    assert colbert.pooled is None
    with pytest.raises(ValueError, match="no vectors of whole texts"):
        colbert.vectors(colbert.tokenize(["tide"]), sentences=True)
