"""Every kind of sparse encoder from its folder, against the formula computed by hand from the whole net."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from sentence_transformers import SparseEncoder as Reference
from transformers import (
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    Gemma2Config,
    Gemma2ForCausalLM,
)

from models.sparse import SparseEncoder
from tests.models.sparse_folders import causal, dense, inference_free, say, splade, term_net
from tests.nets import VOCABULARY, tiny_encoder, tiny_sparse_encoder

TEXTS = ["the moon pulls the sea", "cat", "rain falls into the sea and the sea is water"]
SPECIALS = range(5)


def load(path: Path) -> SparseEncoder:
    return SparseEncoder.load(str(path), dtype="float32")


def pieces(text: str) -> list[int]:
    return [VOCABULARY.index(word) for word in text.split()]


def special(weights: torch.Tensor) -> torch.Tensor:
    weights[..., list(SPECIALS)] = 0.0
    return weights


@pytest.mark.parametrize("pooling", ["max", "sum"])
@pytest.mark.parametrize("activation", ["relu", "log1p_relu"])
def test_splade_is_that_of_sentence_transformers_without_votes_of_special_tokens(
    pooling: str, activation: str, tmp_path: Path
) -> None:
    path = splade(tmp_path, pooling_strategy=pooling, activation_function=activation)
    reference = Reference(str(path), device="cpu")
    features = reference[0](reference.preprocess(TEXTS))
    features["attention_mask"] = (features["input_ids"] > SPECIALS[-1]).long()
    with torch.inference_mode():
        expected = special(reference[1](features)["sentence_embedding"])
    np.testing.assert_allclose(dense(load(path).encode(TEXTS)), expected.numpy(), atol=1e-5)


def test_the_doubled_logarithm_is_read_from_the_folder(tmp_path: Path) -> None:
    single = load(splade(tmp_path / "single"))
    double = load(splade(tmp_path / "double", activation_function="log1p_relu"))
    expected = np.log1p(dense(single.encode(TEXTS)))
    np.testing.assert_allclose(dense(double.encode(TEXTS)), expected, atol=1e-5)
    assert (single.ceiling, double.ceiling) == (8.0, 4.0)


def test_a_plain_masked_language_model_is_splade(tmp_path: Path) -> None:
    path = tiny_sparse_encoder(tmp_path / "net")
    net = AutoModelForMaskedLM.from_pretrained(path).eval()
    cls, sep = pieces("[CLS] [SEP]")
    with torch.inference_mode():
        logits = net(torch.tensor([[cls, *pieces("the sea"), sep]])).logits
    expected = special(logits[0, 1:-1].amax(0).relu().log1p())
    np.testing.assert_allclose(dense(load(path).encode(["the sea"]))[0], expected.numpy(), atol=1e-5)


def test_an_inference_free_folder_brings_its_table_for_questions(tmp_path: Path) -> None:
    path = inference_free(tmp_path, {"the": 0.25, "cat": 4.0, "sea": -1.0})
    encoder = load(path)
    assert encoder.idf is not None
    assert encoder.idf.dtype == np.float32
    assert [encoder.idf[VOCABULARY.index(word)] for word in ("the", "cat", "sea", "dog")] == [0.25, 4, -1, 1]
    plain = load(tmp_path / "plain")
    assert plain.idf is None
    assert np.array_equal(dense(encoder.encode(TEXTS)), dense(plain.encode(TEXTS)))


def test_a_table_beside_a_net_weighs_questions(tmp_path: Path) -> None:
    path = tiny_sparse_encoder(tmp_path / "net")
    plain = load(path)
    table = np.ones(len(VOCABULARY), np.float32)
    table[pieces("the cat sea [CLS]")] = [0.2, 4.0, -1.0, 9.0]
    save_file({"idf": torch.from_numpy(table)}, path / "idf.safetensors")
    encoder = load(path)
    asked = encoder.encode(["the the cat", "cat sea", ""], "query")
    found = [dict(zip(encoder.words(terms), weights.tolist(), strict=True)) for terms, weights in asked]
    assert found == [{"the": pytest.approx(0.2), "cat": 4.0}, {"cat": 4.0}, {}]
    assert encoder.fingerprint != plain.fingerprint
    assert np.array_equal(dense(encoder.encode(TEXTS)), dense(plain.encode(TEXTS)))


def test_questions_and_passages_may_share_a_batch(tmp_path: Path) -> None:
    encoder = load(inference_free(tmp_path, {"cat": 4.0}))
    mixed = [
        *encoder.tokenize(["cat"], "query"),
        *encoder.tokenize(TEXTS[:1]),
        *encoder.tokenize(["cat moon"], "query"),
        *encoder.tokenize(TEXTS[1:2]),
    ]
    found, passages = dense(encoder.forward(mixed)), dense(encoder.encode(TEXTS[:2]))
    np.testing.assert_allclose(found[[1, 3]], passages, atol=1e-5)
    cat, moon = pieces("cat moon")
    assert [row[[cat, moon]].tolist() for row in found[[0, 2]]] == [[4.0, 0.0], [4.0, 1.0]]


def test_a_table_is_of_the_folder_with_a_recipe_too_and_of_pieces_by_name(tmp_path: Path) -> None:
    path = say(tiny_sparse_encoder(tmp_path / "net"), kind="mlm", pooling="max", activation="log1p")
    (path / "idf.json").write_text(json.dumps({"cat": 4.0, "the": -1}))
    ((terms, weights),) = load(path).encode(["the cat is"], "query")
    assert dict(zip(terms.tolist(), weights.tolist(), strict=True)) == {
        pieces("cat")[0]: 4.0,
        pieces("is")[0]: 1.0,
    }


def test_a_table_is_the_same_from_converted_weights(tmp_path: Path) -> None:
    path = inference_free(tmp_path, {"cat": 1.2345678})
    cached = SparseEncoder.load(str(path), dtype="bfloat16", cache=tmp_path / "cache")
    assert cached.idf is not None
    assert cached.idf[VOCABULARY.index("cat")] == np.float32(1.2345678)


@pytest.mark.parametrize("activation", ["relu", "log1p"])
def test_term_weights_are_those_of_the_texts_own_pieces(activation: str, tmp_path: Path) -> None:
    direction = torch.linspace(-1, 1, 32)
    path = term_net(tmp_path, direction, 0.5, activation=activation)
    body = AutoModel.from_pretrained(path).eval()
    cls, sep = pieces("[CLS] [SEP]")
    text = pieces("sea moon sea")
    with torch.inference_mode():
        states = body(torch.tensor([[cls, *text, sep]])).last_hidden_state[0, 1:-1]
    each = (states @ direction + 0.5).relu()
    each = each if activation == "relu" else each.log1p()
    found = dense(load(path).encode(["sea moon sea"]))[0]
    assert found[text[1]] == pytest.approx(float(each[1]), abs=1e-5)
    assert found[text[0]] == pytest.approx(float(max(each[0], each[2])), abs=1e-5)
    assert set(np.flatnonzero(found)) <= set(text)


def test_term_weights_lie_inside_the_text_and_not_on_its_prompt(tmp_path: Path) -> None:
    path = term_net(tmp_path, torch.zeros(32), 1.0, prompts={"document": "the cat is"})
    (row,) = load(path).encode(["moon, moon sea"])
    assert dict(zip(load(path).words(row[0]), row[1].tolist(), strict=True)) == {
        "moon": 1.0,
        ",": 1.0,
        "sea": 1.0,
    }


def logits(path: Path, ids: list[int]) -> torch.Tensor:
    net = AutoModelForCausalLM.from_pretrained(path).eval()
    with torch.inference_mode():
        found: torch.Tensor = net(torch.tensor([ids])).logits[0]
    return found


ECHO: dict[str, Any] = {"kind": "decoder", "activation": "log1p", "separator": "! !"}


def test_a_causal_model_is_pooled_over_the_second_copy(tmp_path: Path) -> None:
    path = causal(tmp_path, **ECHO, pooling="max", prompts={"document": "is"})
    cls, sep = pieces("[CLS] [SEP]")
    text = pieces("the sea")
    found = logits(path, [cls, *pieces("is"), *text, *pieces("! !"), *text, sep])
    expected = special(found[-3:-1].amax(0).relu().log1p())
    np.testing.assert_allclose(dense(load(path).encode(["the sea"]))[0], expected.numpy(), atol=1e-5)


def test_or_read_at_its_last_token(tmp_path: Path) -> None:
    path = causal(tmp_path, **ECHO, pooling="last")
    cls, sep = pieces("[CLS] [SEP]")
    text = pieces("the sea")
    expected = special(logits(path, [cls, *text, *pieces("! !"), *text, sep])[-1].relu().log1p())
    found = dense(load(path).encode(["the sea", "a much longer text beside it"]))[0]
    np.testing.assert_allclose(found, expected.numpy(), atol=1e-5)


def test_only_the_second_copy_has_seen_what_follows(tmp_path: Path) -> None:
    path = causal(tmp_path, **ECHO, pooling="max")
    cls, *between = pieces("[CLS] ! !")

    def positions(text: str) -> tuple[torch.Tensor, torch.Tensor]:
        ids = pieces(text)
        found = logits(path, [cls, *ids, *between, *ids])
        return found[1], found[1 + len(ids) + len(between)]

    first, second = zip(positions("sea moon tide"), positions("sea moon rain"), strict=True)
    assert torch.equal(*first)
    assert not torch.allclose(*second, atol=1e-3)


def test_a_text_read_twice_takes_half_the_context(tmp_path: Path) -> None:
    encoder = load(causal(tmp_path, context=20, **ECHO, pooling="max"))
    (laid,) = encoder.tokenize(["sea " * 50])
    assert [number for number in laid if number >= 0] == pieces("sea " * 8)
    assert encoder.max_tokens == 8 + len(encoder.tokenize([""])[0])
    assert encoder.tokenize(["sea " * 8]) == [laid]


PROSPER: dict[str, Any] = {"kind": "prosper", "pooling": "last", "activation": "log1p"}


def test_prosper_lifts_the_literal_terms_at_the_last_position(tmp_path: Path) -> None:
    path = causal(tmp_path, **PROSPER)
    cls, sep = pieces("[CLS] [SEP]")
    text = pieces("tide moon")
    base = logits(path, [cls, *text, sep])[-1].relu().log1p()
    net = AutoModelForCausalLM.from_pretrained(path).eval()
    with torch.inference_mode():
        state = net.model(torch.tensor([[cls, *text, sep]])).last_hidden_state[0, -1]
    fc = load_file(path / "head.safetensors")
    lifted = fc["fc.weight"] @ state.relu().log1p() + fc["fc.bias"]
    expected = base.clone()
    expected[text] += lifted.max() - lifted[text]
    found = dense(load(path).encode(["tide moon"]))[0]
    np.testing.assert_allclose(found, special(expected).numpy(), atol=1e-5)


def test_a_window_keeps_the_heaviest_terms_and_only_questions_have_unit_length(tmp_path: Path) -> None:
    whole = load(causal(tmp_path / "whole", **PROSPER))
    cut = load(causal(tmp_path / "cut", **PROSPER, query_terms=3, document_terms=5))
    (terms, weights), (passage_terms, passage) = (
        cut.encode(["sea"], "query").row(0),
        cut.encode(["sea"]).row(0),
    )
    (every_term, every) = whole.encode(["sea"]).row(0)
    assert (len(terms), len(passage_terms)) == (3, 5)
    assert np.linalg.norm(weights) == pytest.approx(1.0, abs=1e-6)
    assert sorted(passage) == sorted(every)[-5:]
    assert set(terms) < set(passage_terms) < set(every_term)


def test_a_window_that_holds_everything_changes_nothing(tmp_path: Path) -> None:
    whole = load(causal(tmp_path / "whole", **PROSPER))
    wide = load(causal(tmp_path / "wide", **PROSPER, document_terms=1000))
    assert np.array_equal(dense(whole.encode(TEXTS)), dense(wide.encode(TEXTS)))


def test_a_net_without_a_masked_language_head_is_refused(tmp_path: Path) -> None:
    path = tiny_encoder(tmp_path / "net")
    (path / "modules.json").unlink()
    with pytest.raises(ValueError, match="is BertModel, not a masked-language model"):
        load(path)


def test_a_dense_encoder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"by .*, not by Transformer and SpladePooling"):
        load(tiny_encoder(tmp_path / "net"))


def test_a_head_that_the_weights_lack_is_refused(tmp_path: Path) -> None:
    path = say(tiny_encoder(tmp_path / "net"), kind="mlm", pooling="max", activation="log1p")
    with pytest.raises(ValueError, match=r"lacks weights of BertForMaskedLM: cls\.predictions"):
        load(path)


def test_extra_weights_of_another_shape_are_refused(tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match=r"should hold tensors of shapes .*'a': \(32,\).* but holds .*\(31,\)"
    ):
        load(term_net(tmp_path / "shape", torch.zeros(31), 0.0))
    missing = term_net(tmp_path / "file", torch.zeros(32), 0.0)
    (missing / "head.safetensors").unlink()
    with pytest.raises(ValueError, match=r"head\.safetensors should hold .* but holds {}"):
        load(missing)


def test_prompts_that_the_layout_cannot_place_are_refused(tmp_path: Path) -> None:
    path = splade(tmp_path)
    (path / "config_sentence_transformers.json").write_text(
        json.dumps({"model_type": "SparseEncoder", "prompts": {"query": "ask: "}})
    )
    with pytest.raises(ValueError, match=r"puts prompts before its texts; say in a sparse\.json"):
        load(path)


def test_a_recipe_decides_over_the_layout(tmp_path: Path) -> None:
    path = splade(tmp_path)
    say(path, kind="mlm", pooling="max", activation="log1p_log1p", prompts={"query": "is"})
    assert load(path).ceiling == 4.0
    assert load(path).tokenize(["sea"], "query") != load(path).tokenize(["sea"])


def test_questions_with_a_net_of_their_own_are_refused(tmp_path: Path) -> None:
    path = inference_free(tmp_path, {})
    config = json.loads((path / "router_config.json").read_text())
    config["structure"]["query"] = config["structure"]["document"]
    (path / "router_config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match="has a net of its own for questions"):
        load(path)


def test_logits_that_are_changed_after_the_projection_are_refused(tmp_path: Path) -> None:
    path = causal(tmp_path / "net", **ECHO, pooling="max")
    config = Gemma2Config(
        vocab_size=len(VOCABULARY),
        hidden_size=32,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
        head_dim=16,
        initializer_range=0.3,
    )
    Gemma2ForCausalLM(config).save_pretrained(path)
    with pytest.raises(ValueError, match="Gemma2ForCausalLM changes its logits after the projection"):
        load(path)
