from pathlib import Path

import pytest
import torch
from torch import nn

from models.adapter import merged, read_adapter
from models.training.lora import LoraLinear, put_lora, save_lora


class Net(nn.Module):
    """Two layers, and a pooler that nothing is put beside."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.first, self.second, self.pooler = nn.Linear(6, 5), nn.Linear(5, 4, bias=False), nn.Linear(4, 4)

    def forward(self, states):
        return self.pooler(self.second(self.first(states).relu()))


def adapted(dtype: torch.dtype = torch.float32) -> Net:
    net = Net()
    put_lora(net, rank=2, seed=1, dtype=dtype)
    return net


def moved(net: Net) -> Net:
    """With a change that is not zero."""
    chance = torch.Generator().manual_seed(9)
    for layer in (net.first, net.second):
        layer.lora_b.data = torch.randn(layer.lora_b.shape, generator=chance)
    return net


STATES = torch.randn(3, 2, 6, generator=torch.Generator().manual_seed(2))


def test_untrained_it_changes_nothing():
    torch.testing.assert_close(adapted()(STATES), Net()(STATES))


def test_only_its_matrices_are_trained_and_a_seed_decides_them():
    one, other = adapted(), adapted()
    names = [name for name, weight in one.named_parameters() if weight.requires_grad]
    assert names == ["first.lora_a", "first.lora_b", "second.lora_a", "second.lora_b"]
    assert torch.equal(one.first.lora_a, other.first.lora_a)
    assert isinstance(one.pooler, nn.Linear)


def test_gradients_are_those_of_the_layer_written_out():
    net = moved(adapted())
    (net(STATES) ** 2).sum().backward()
    plain, parts = Net(), {}
    for name in ("first", "second"):
        layer = getattr(net, name)
        parts[name] = [each.detach().clone().requires_grad_(True) for each in (layer.lora_a, layer.lora_b)]
    hidden = plain.first(STATES) + 2.0 * STATES @ parts["first"][0].T @ parts["first"][1].T
    hidden = hidden.relu()
    out = plain.second(hidden) + 2.0 * hidden @ parts["second"][0].T @ parts["second"][1].T
    (plain.pooler(out) ** 2).sum().backward()
    for name, (a, b) in parts.items():
        torch.testing.assert_close(getattr(net, name).lora_a.grad, a.grad)
        torch.testing.assert_close(getattr(net, name).lora_b.grad, b.grad)


@pytest.mark.parametrize("fused", [False, True])
def test_a_step_after_measuring_learns_on(fused: bool):
    net = adapted()
    weights = [each for each in net.parameters() if each.requires_grad]
    optimizer = torch.optim.AdamW(weights, 0.01, fused=fused)
    losses = []
    for _ in range(3):
        with torch.inference_mode():
            net(STATES)
        loss = (net(STATES) - 1).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[0] > losses[1] > losses[2]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_what_is_saved_and_merged_is_what_was_trained(dtype: torch.dtype, tmp_path: Path):
    net = moved(adapted(dtype))
    for layer in (net.first, net.second):
        for each in (layer.lora_a, layer.lora_b):
            each.data = each.data.bfloat16().float()  # as it is saved
    save_lora(net, tmp_path)
    served = merged(Net(), read_adapter("it", tmp_path), "cpu", dtype)
    assert torch.equal(served.first.weight, net.first.merged())
    assert torch.equal(served(STATES.to(dtype)), net(STATES.to(dtype)))


def test_a_net_without_layers_is_refused():
    with pytest.raises(ValueError, match="no linear layers"):
        put_lora(nn.Sequential(nn.ReLU()), 2, 0, torch.float32)


def test_a_layer_computes_in_its_format_and_keeps_its_weight():
    net = adapted(torch.bfloat16)
    assert isinstance(net.first, LoraLinear)
    assert (net.first.weight.dtype, net.first.merged().dtype) == (torch.float32, torch.bfloat16)
    assert net.pooler.weight.dtype == torch.bfloat16
