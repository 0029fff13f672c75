"""A head beside an encoder scores as the sequence classifier of `transformers` with the same tensors."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from models.cross import CrossEncoder
from models.cross_heads import FILE
from tests.models.adapters import trained
from tests.models.cross_folders import HIDDEN, classifier, encoder, head_tensors, headed, say
from tests.nets import tiny_causal, tiny_cross_encoder, tiny_encoder, tiny_sparse_encoder

PAIRS = [("the moon", "the moon pulls the sea"), ("cat", "the sea"), ("dog " * 20, "rain " * 30)]


def logits(net: Any, tokenizer: Path) -> np.ndarray:
    read = AutoTokenizer.from_pretrained(tokenizer)
    texts = read(*map(list, zip(*PAIRS, strict=True)), padding=True, return_tensors="pt")
    with torch.inference_mode():
        found: np.ndarray = net(**texts).logits[:, 0].numpy()
    return found


def predict(path: Path, **keys: Any) -> np.ndarray:
    return CrossEncoder.load(str(path), **{"dtype": "float32", **keys}).predict(PAIRS)


def test_a_base_with_a_head_is_a_sequence_classifier(tmp_path: Path):
    path = headed(tmp_path / "own")
    expected = logits(classifier(encoder(tmp_path / "net"), head_tensors()), tmp_path / "net")
    np.testing.assert_allclose(predict(path), expected, atol=1e-5)
    net = CrossEncoder.load(str(path), dtype="float32")
    assert (net.name, net.max_tokens, net.dtype) == (str(path), 256, "float32")
    assert np.ptp(expected) > 0.1


def test_an_adapter_is_merged_into_the_base(tmp_path: Path):
    path = headed(tmp_path / "own", adapter="lora")
    body = trained(path / "lora", encoder(tmp_path / "net"))
    expected = logits(classifier(body, head_tensors()), tmp_path / "net")
    np.testing.assert_allclose(predict(path), expected, atol=1e-5)
    assert not np.allclose(predict(say(path, model="../net")), expected, atol=1e-2)


def test_an_adapter_may_change_a_cross_encoder_too(tmp_path: Path):
    base = tiny_cross_encoder(tmp_path / "net")
    own = say(tmp_path / "own", model="../net", adapter="lora")
    net = trained(own / "lora", AutoModelForSequenceClassification.from_pretrained(base))
    np.testing.assert_allclose(predict(own), logits(net, base), atol=1e-5)


@pytest.mark.parametrize("make", [tiny_encoder, tiny_sparse_encoder, tiny_cross_encoder])
def test_the_base_may_be_any_encoder_and_stand_in_the_folder_itself(make: Any, tmp_path: Path):
    path = make(tmp_path / "own")
    save_file(head_tensors(), path / FILE)
    expected = logits(classifier(encoder(path), head_tensors()), path)
    np.testing.assert_allclose(predict(path), expected, atol=1e-5)


def test_the_transformer_of_a_dense_encoder_may_stand_in_a_folder_of_its_own(tmp_path: Path):
    path = headed(tmp_path / "own")
    expected, net = predict(path), tmp_path / "net"
    (net / "0_Transformer").mkdir()
    for name in ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"):
        shutil.move(net / name, net / "0_Transformer" / name)
    modules = (net / "modules.json").read_text()
    (net / "modules.json").write_text(modules.replace('"path": ""', '"path": "0_Transformer"'))
    np.testing.assert_array_equal(predict(path), expected)


@pytest.mark.parametrize("adapted", [False, True])
def test_a_converted_copy_of_the_base_gives_the_same_bits(adapted: bool, tmp_path: Path):
    path = headed(tmp_path / "own", **({"adapter": "lora"} if adapted else {}))
    if adapted:
        trained(path / "lora", encoder(tmp_path / "net"))
    cache = tmp_path / "cache"
    once, kept = predict(path, dtype="bfloat16"), predict(path, dtype="bfloat16", cache=cache)
    np.testing.assert_array_equal(once, kept)
    np.testing.assert_allclose(once, predict(path), atol=0.2)
    assert len(list(cache.glob("*-bfloat16"))) == (not adapted)
    save_file(head_tensors(2), path / FILE)
    assert not np.allclose(predict(path, dtype="bfloat16", cache=cache), once)


def test_the_fingerprint_covers_base_adapter_head_and_recipe(tmp_path: Path):
    path = headed(tmp_path / "own")
    body = encoder(tmp_path / "net")
    found = []
    for seed, recipe in ((1, {}), (2, {}), (2, {"passages": 3}), (2, {"adapter": "lora"})):
        save_file(head_tensors(seed), path / FILE)
        if recipe.get("adapter"):
            trained(path / "lora", body)
        say(path, model="../net", **recipe)
        found.append(CrossEncoder.load(str(path)).fingerprint)
    tiny_encoder(tmp_path / "net", seed=8)
    found.append(CrossEncoder.load(str(path)).fingerprint)
    assert len(set(found)) == len(found)


def test_a_head_in_bfloat16_is_read(tmp_path: Path):
    path = headed(tmp_path / "own")
    rounded = {name: each.bfloat16() for name, each in load_file(path / FILE).items()}
    save_file(rounded, path / FILE)
    exact = {name: each.float() for name, each in rounded.items()}
    expected = logits(classifier(encoder(tmp_path / "net"), exact), tmp_path / "net")
    np.testing.assert_allclose(predict(path), expected, atol=1e-5)


def refused(path: Path, named: str) -> None:
    with pytest.raises(ValueError, match=named):
        CrossEncoder.load(str(path))


def test_a_head_of_another_form_is_refused(tmp_path: Path):
    path = headed(tmp_path / "own")
    save_file({**head_tensors(), "extra": torch.ones(1)}, path / FILE)
    refused(path, "head.safetensors should hold tensors of shapes")
    tiny_encoder(tmp_path / "net", dim=HIDDEN // 2)
    save_file(head_tensors(), path / FILE)
    refused(path, r"pooler.weight': \(16, 16\)")


def test_what_has_no_head_and_what_cannot_have_one_is_refused(tmp_path: Path):
    path = headed(tmp_path / "own")
    (path / FILE).unlink()
    refused(path, "net is BertModel, not a cross-encoder")
    tiny_causal(tmp_path / "causal")
    save_file(head_tensors(), say(path, model="../causal") / FILE)
    refused(path, "causal is LlamaForCausalLM, not an encoder that a head.safetensors can be for")
