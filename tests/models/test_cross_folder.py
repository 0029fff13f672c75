"""Folders score as sentence-transformers scores them, whichever version wrote them, or are refused."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.torch import load_file, save_file
from sentence_transformers import CrossEncoder as Theirs

from models.cross import CrossEncoder
from models.cross_recipe import FILE
from tests.nets import tiny_cross_encoder, tiny_encoder

PAIRS = [("the moon", "the moon pulls the sea"), ("cat", "the sea"), ("dog " * 20, "rain " * 30)]
IDENTITY = "torch.nn.modules.linear.Identity"


def change(file: Path, **values: Any) -> None:
    given = json.loads(file.read_text()) if file.is_file() else {}
    file.write_text(json.dumps({**given, **values}))


def saved(folder: Path) -> Path:
    """A directory as sentence-transformers writes it today."""
    Theirs(str(tiny_cross_encoder(folder / "old")), device="cpu").save_pretrained(str(folder / "new"))
    return folder / "new"


def same(path: Path) -> None:
    net = CrossEncoder.load(str(path), dtype="float32")
    theirs = Theirs(str(path), device="cpu")
    np.testing.assert_allclose(net.activate(net.predict(PAIRS)), theirs.predict(PAIRS), atol=1e-6, rtol=0)


def test_a_folder_that_says_nothing_of_its_activation_has_a_sigmoid(tmp_path: Path):
    path = tiny_cross_encoder(tmp_path / "net")
    same(path)
    net = CrossEncoder.load(str(path), dtype="float32")
    assert (net.activate(net.predict(PAIRS)) != net.predict(PAIRS)).all()


@pytest.mark.parametrize(
    "said",
    [
        {"sentence_transformers": {"activation_fn": IDENTITY}},
        {"sbert_ce_default_activation_function": IDENTITY},
    ],
)
def test_a_configuration_may_name_the_activation(tmp_path: Path, said: dict[str, Any]):
    path = tiny_cross_encoder(tmp_path / "net", **said)
    same(path)
    net = CrossEncoder.load(str(path), dtype="float32")
    np.testing.assert_array_equal(net.activate(net.predict(PAIRS)), net.predict(PAIRS))


def test_a_folder_of_today_is_read(tmp_path: Path):
    path = saved(tmp_path)
    assert (path / "modules.json").is_file()
    same(path)
    change(path / "config_sentence_transformers.json", activation_fn=IDENTITY)
    same(path)


def test_a_folder_may_read_less_than_its_net_could(tmp_path: Path):
    path = saved(tmp_path)
    change(path / "sentence_bert_config.json", max_seq_length=24)
    assert CrossEncoder.load(str(path)).max_tokens == 24
    same(path)


def refused(path: Path, named: str) -> None:
    with pytest.raises(ValueError, match=named):
        CrossEncoder.load(str(path))


def test_several_labels_are_refused(tmp_path: Path):
    refused(tiny_cross_encoder(tmp_path / "net", labels=3), "tells 3 classes apart")


def test_an_encoder_is_none(tmp_path: Path):
    refused(tiny_encoder(tmp_path / "net"), "is BertModel, not a cross-encoder")


@pytest.mark.parametrize("lost", ["classifier.weight", "bert.pooler.dense.weight"])
def test_weights_that_are_missing_are_named(tmp_path: Path, lost: str):
    path = tiny_cross_encoder(tmp_path / "net")
    tensors = load_file(path / "model.safetensors")
    del tensors[lost]
    save_file(tensors, path / "model.safetensors", {"format": "pt"})
    refused(path, lost)


@pytest.mark.parametrize("activation", ["torch.nn.modules.activation.Tanh", "theirs.Sigmoid"])
def test_other_activations_are_refused(tmp_path: Path, activation: str):
    path = tiny_cross_encoder(tmp_path / "net", sentence_transformers={"activation_fn": activation})
    refused(path, activation)


def test_what_would_be_done_beyond_the_transformer_is_refused(tmp_path: Path):
    path = saved(tmp_path)
    prompts = {"prompts": {"rank": "Is it relevant? "}, "default_prompt_name": "rank"}
    change(path / "config_sentence_transformers.json", **prompts)
    refused(path, "puts a prompt")
    change(path / "config_sentence_transformers.json", default_prompt_name=None)
    same(path)
    change(path / "sentence_bert_config.json", do_lower_case=True)
    refused(path, "do_lower_case")
    modules = json.loads((path / "modules.json").read_text())
    dense = {
        "idx": 1,
        "name": "1",
        "path": "1_Dense",
        "type": "sentence_transformers.base.modules.dense.Dense",
    }
    (path / "modules.json").write_text(json.dumps([*modules, dense]))
    refused(path, "Transformer and Dense")


def test_a_recipe_that_is_wrong_is_refused(tmp_path: Path):
    path = tiny_cross_encoder(tmp_path / "net")
    (path / FILE).write_text('{"depth": 3}')
    refused(path, "depth")


def test_a_net_that_does_not_say_how_long_it_reads_is_refused(tmp_path: Path):
    path = tiny_cross_encoder(tmp_path / "net")
    change(path / "tokenizer_config.json", model_max_length=10**30)
    assert CrossEncoder.load(str(path)).max_tokens == 256, "as many as it has positions"
    change(path / "config.json", max_position_embeddings=10**6)
    refused(path, "model_max_length")
