"""Weights are data: whatever a folder holds, reading it runs nothing of it."""

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from models.load import WeightsMissing
from models.roles import Role, loader
from tests.models.sparse_folders import splade
from tests.nets import tiny_causal, tiny_cross_encoder, tiny_encoder, tiny_sparse_encoder

FOLDERS: dict[Role, Callable[[Path], Any]] = {
    "dense": tiny_encoder,
    "sparse": tiny_sparse_encoder,
    "late": tiny_encoder,
    "cross": tiny_cross_encoder,
    "in_context": tiny_causal,
}


class Canary:
    """A pickle that leaves a file where it is read."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> Any:
        return (Path.write_text, (self.trace, "it ran"))


@pytest.fixture(params=FOLDERS)
def role(request: pytest.FixtureRequest) -> Role:
    return request.param


@pytest.fixture
def net(tmp_path: Path, role: Role) -> Path:
    FOLDERS[role](tmp_path / "net")
    return tmp_path / "net"


def load(role: Role, net: Path, cache: Path) -> Any:
    return loader(cache)(role, str(net))


def test_the_canary_sings(tmp_path: Path):
    pickle.loads(pickle.dumps(Canary(tmp_path / "trace")))
    assert (tmp_path / "trace").exists()


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt"])
def test_pickled_weights_are_refused_unread(role: Role, net: Path, name: str, tmp_path: Path):
    (net / "model.safetensors").unlink()
    (net / name).write_bytes(pickle.dumps(Canary(tmp_path / "trace")))
    with pytest.raises(WeightsMissing, match="Pickled weights can run code"):
        load(role, net, tmp_path / "cache")
    assert not (tmp_path / "trace").exists()


def test_pickled_weights_beside_others_are_left_alone(role: Role, net: Path, tmp_path: Path):
    for name in (
        "pytorch_model.bin",
        "training_args.bin",
        "optimizer.pt",
        "scheduler.pt",
        "adapter_model.bin",
    ):
        (net / name).write_bytes(pickle.dumps(Canary(tmp_path / "trace")))
    load(role, net, tmp_path / "cache")
    assert not (tmp_path / "trace").exists()


def test_code_beside_weights_is_not_run(role: Role, net: Path, tmp_path: Path):
    (net / "modeling_canary.py").write_text(song(tmp_path))
    config = json.loads((net / "config.json").read_text())
    config["auto_map"] = dict.fromkeys(
        ("AutoConfig", "AutoModel", "AutoModelForMaskedLM"), "modeling_canary.Net"
    )
    (net / "config.json").write_text(json.dumps(config))
    load(role, net, tmp_path / "cache")
    assert not (tmp_path / "trace").exists()


@pytest.mark.parametrize("role", ["dense", "late", "sparse"])
def test_a_layer_is_not_taken_from_code_beside_weights(role: Role, tmp_path: Path):
    net = splade(tmp_path / "net") if role == "sparse" else tiny_encoder(tmp_path / "net")
    modules = json.loads((net / "modules.json").read_text())
    modules.append({"idx": len(modules), "name": "canary", "path": "", "type": "canary.Net"})
    (net / "modules.json").write_text(json.dumps(modules))
    (net / "canary.py").write_text(song(tmp_path))
    with pytest.raises((WeightsMissing, ValueError, ImportError), match="canary"):
        load(role, net, tmp_path / "cache")
    assert not (tmp_path / "trace").exists()


def song(place: Path) -> str:
    return f"from pathlib import Path\nPath({str(place / 'trace')!r}).write_text('it ran')\n"
