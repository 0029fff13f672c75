import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torch.nn.functional import linear
from transformers import AutoModel

from models.adapter import read_adapter
from tests.models.adapters import random_pair, write_adapter
from tests.nets import tiny_causal

A, B = torch.tensor([[1.0, 0.0, 2.0]]), torch.tensor([[10.0], [20.0]])
PRODUCT = [[10.0, 0.0, 20.0], [20.0, 0.0, 40.0]]


class Body(nn.Module):
    """Two layers of 3 numbers to 2, whose weights are ones."""

    base_model_prefix = "model"

    def __init__(self, first: nn.Module | None = None) -> None:
        super().__init__()
        self.first = first or nn.Linear(3, 2, bias=False)
        self.second = nn.Linear(3, 2, bias=False)
        for weight in self.parameters():
            nn.init.ones_(weight)


def merged(folder: Path, paths: tuple[str, ...] = ("model.first",), **config: Any) -> Body:
    net = Body()
    write_adapter(folder, dict.fromkeys(paths, (A, B)), **{"r": 1, "lora_alpha": 1, **config})
    read_adapter("tiny", folder).merge(net)
    return net


def test_a_layer_becomes_its_weight_and_the_product_of_both_matrices(tmp_path: Path) -> None:
    net = merged(tmp_path)
    assert net.first.weight.tolist() == [[11.0, 1.0, 21.0], [21.0, 1.0, 41.0]]
    assert net.second.weight.tolist() == [[1.0] * 3] * 2


@pytest.mark.parametrize("path", ["first", "model.first"])
def test_layers_are_found_with_and_without_the_name_of_the_body(path: str, tmp_path: Path) -> None:
    assert merged(tmp_path, (path,)).first.weight[0, 0] == 11.0


@pytest.mark.parametrize(
    ("config", "first", "second"),
    [
        ({"lora_alpha": 3}, 3.0, 3.0),
        ({"alpha_pattern": {"first": 5}}, 5.0, 1.0),
        ({"alpha_pattern": {"model.second": 7}}, 1.0, 7.0),
        ({"alpha_pattern": {"(first|second)": 2, "first": 9}}, 2.0, 2.0),
        ({"alpha_pattern": {"irst": 5}}, 1.0, 1.0),
    ],
)
def test_alpha_is_the_scale_and_the_first_pattern_at_a_names_end_changes_it(
    config: dict[str, Any], first: float, second: float, tmp_path: Path
) -> None:
    net = merged(tmp_path, ("model.first", "model.second"), **config)
    assert [[net.first.weight[0, 0], net.second.weight[0, 0]]] == [[1 + 10 * first, 1 + 10 * second]]


@pytest.mark.parametrize(("stabilised", "scale"), [(False, 8 / 4), (True, 8 / 2)])
def test_the_scale_is_divided_by_the_rank_or_its_root(stabilised: bool, scale: float, tmp_path: Path) -> None:
    four = torch.cat([A, torch.zeros(3, 3)]), torch.cat([B, torch.zeros(2, 3)], dim=1)
    net = Body()
    write_adapter(tmp_path, {"first": four}, r=4, lora_alpha=8, use_rslora=stabilised)
    read_adapter("tiny", tmp_path).merge(net)
    assert net.first.weight.tolist() == (1 + scale * torch.tensor(PRODUCT)).tolist()


def test_a_layer_may_have_a_rank_of_its_own(tmp_path: Path) -> None:
    net = Body()
    write_adapter(tmp_path, {"first": (A, B)}, r=8, lora_alpha=3, rank_pattern={"first": 1})
    read_adapter("tiny", tmp_path).merge(net)
    assert net.first.weight[1].tolist() == [61.0, 1.0, 121.0]


def test_layers_that_hold_inputs_first_get_the_product_turned(tmp_path: Path) -> None:
    net = Body(nn.Linear(2, 3, bias=False))
    write_adapter(tmp_path, {"first": (A, B)}, r=1, lora_alpha=1, fan_in_fan_out=True)
    read_adapter("tiny", tmp_path).merge(net)
    assert net.first.weight.tolist() == [[11.0, 21.0], [1.0, 1.0], [21.0, 41.0]]


def test_a_decoder_computes_what_adapter_and_weights_compute_apart(tmp_path: Path) -> None:
    path = tiny_causal(tmp_path / "net", layers=2)
    plain, changed = (AutoModel.from_pretrained(path, dtype=torch.float32) for _ in range(2))
    sizes = {"self_attn.q_proj": (64, 64), "self_attn.k_proj": (64, 32), "mlp.down_proj": (128, 64)}
    pairs = {f"model.layers.1.{name}": random_pair(*size) for name, size in sizes.items()}
    read_adapter("tiny", write_adapter(tmp_path / "adapter", pairs, lora_alpha=3)).merge(changed)

    for name in sizes:
        a, b = pairs[f"model.layers.1.{name}"]

        def add(module: nn.Module, given: Any, out: torch.Tensor, a: Any = a, b: Any = b) -> torch.Tensor:
            return out + 1.5 * linear(linear(given[0], a), b)

        plain.get_submodule(f"layers.1.{name}").register_forward_hook(add)
    ids = torch.arange(20, 30)[None]
    with torch.inference_mode():
        wanted, found = (net(input_ids=ids).last_hidden_state for net in (plain, changed))
        before = AutoModel.from_pretrained(path, dtype=torch.float32)(input_ids=ids).last_hidden_state
    torch.testing.assert_close(found, wanted, atol=1e-4, rtol=1e-4)
    assert not torch.allclose(found, before, atol=0.1)


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"peft_type": "IA3"}, "peft_type in .* is not LORA"),
        ({"use_dora": True}, "asks for use_dora in its adapter_config.json, which is not merged"),
        ({"modules_to_save": ["lm_head"]}, "asks for modules_to_save"),
        ({"lora_bias": True, "layer_replication": [[0, 1]]}, "asks for layer_replication, lora_bias"),
        ({"alora_invocation_tokens": [1]}, "asks for alora_invocation_tokens"),
        ({"something_new": {"a": 1}}, "asks for something_new"),
        ({"bias": "lora_only"}, "changes biases .bias is 'lora_only'., which is not merged"),
        ({"init_lora_weights": "pissa_niter_4"}, "begun from changed weights .* 'pissa_niter_4'"),
        ({"r": 2}, r"matrices \(1, 3\) and \(2, 1\) for model.first, .* their rank is 2"),
        ({"r": None}, "their rank is None"),
        ({"rank_pattern": {"(": 1}}, "no patterns of layers' names in rank_pattern"),
        ({"alpha_pattern": [4]}, "no patterns of layers' names in alpha_pattern"),
        ({"lora_alpha": "1"}, "no number for lora_alpha of model.first: '1'"),
    ],
)
def test_what_would_be_merged_wrongly_is_refused_by_its_key(
    config: dict[str, Any], said: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=f"^tiny .*{said}"):
        merged(tmp_path, **config)


@pytest.mark.parametrize(
    ("paths", "said"),
    [
        (("model.third",), "tiny changes model.third, and the weights have no such layer"),
        (("lm_head",), "tiny changes lm_head, and the weights have no such layer"),
        (("model.first", "model.wide"), r"model.wide by a matrix of \(2, 3\), .* is of \(4, 4\)"),
    ],
)
def test_a_layer_that_does_not_fit_is_named_and_nothing_is_changed(
    paths: tuple[str, ...], said: str, tmp_path: Path
) -> None:
    net = Body()
    net.wide = nn.Linear(4, 4)
    write_adapter(tmp_path, dict.fromkeys(paths, (A, B)), r=1)
    with pytest.raises(ValueError, match=said):
        read_adapter("tiny", tmp_path).merge(net)
    assert net.first.weight.tolist() == [[1.0] * 3] * 2


@pytest.mark.parametrize(
    ("tensors", "said"),
    [
        ({}, "no matrices"),
        ({"base_model.model.first.lora_A.weight": A}, "one matrix of two for first"),
        ({"base_model.model.first.lora_magnitude_vector.weight": A}, "lora_magnitude_vector.* no matrix of"),
        ({"base_model.model.embed.lora_embedding_A": A}, "lora_embedding_A .* no matrix of LoRA"),
        ({"base_model.model.first.lora_A.weight": A[0]}, r"lora_A.weight \(3,\), which is no matrix"),
    ],
)
def test_matrices_of_another_kind_are_refused_by_name(
    tensors: dict[str, torch.Tensor], said: str, tmp_path: Path
) -> None:
    write_adapter(tmp_path, {"first": (A, B)})
    save_file(tensors, tmp_path / "adapter_model.safetensors")
    with pytest.raises(ValueError, match=said):
        read_adapter("tiny", tmp_path)


@pytest.mark.parametrize("text", [None, "", "[]", json.dumps({"r": 8})])
def test_a_folder_without_an_adapters_configuration_is_refused(text: str | None, tmp_path: Path) -> None:
    write_adapter(tmp_path, {"first": (A, B)})
    (tmp_path / "adapter_config.json").unlink()
    if text is not None:
        (tmp_path / "adapter_config.json").write_text(text)
    with pytest.raises(ValueError, match=r"tiny .*adapter_config\.json"):
        read_adapter("tiny", tmp_path)


@pytest.mark.parametrize("content", [None, b"", b"\x80\x04K\x01."])
def test_matrices_that_cannot_be_read_are_refused(content: bytes | None, tmp_path: Path) -> None:
    write_adapter(tmp_path, {"first": (A, B)})
    (tmp_path / "adapter_model.safetensors").unlink()
    if content is not None:
        (tmp_path / "adapter_model.safetensors").write_bytes(content)
    with pytest.raises(ValueError, match=r"tiny has no adapter_model\.safetensors that can be read"):
        read_adapter("tiny", tmp_path)
