import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from models.training.soup import mean


def net(folder: Path, weights: list[float], layers: int = 2) -> Path:
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"layers": layers}))
    (folder / "README.md").write_text(f"# {folder.name}")
    save_file({"w": torch.tensor(weights, dtype=torch.bfloat16)}, folder / "model.safetensors")
    return folder


def test_the_mean_of_two_runs(tmp_path):
    mean([net(tmp_path / "a", [1.0, 2.0]), net(tmp_path / "b", [3.0, -2.0])], tmp_path / "out")
    found = load_file(tmp_path / "out" / "model.safetensors")["w"]
    assert (found.tolist(), found.dtype) == ([2.0, 0.0], torch.bfloat16)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "README.md",
        "SHA256SUMS",
        "config.json",
        "model.safetensors",
    ]
    card = (tmp_path / "out" / "README.md").read_text()
    assert card == "# The mean of the weights of 2 runs\n\n## a\n## b"


def test_nets_that_differ_have_none(tmp_path):
    one = net(tmp_path / "a", [1.0])
    with pytest.raises(ValueError, match="two folders at least"):
        mean([one], tmp_path / "out")
    with pytest.raises(ValueError, match="of different nets"):
        mean([one, net(tmp_path / "b", [1.0, 2.0])], tmp_path / "out")
    with pytest.raises(ValueError, match="only nets of one kind"):
        mean([one, net(tmp_path / "c", [1.0], layers=3)], tmp_path / "out")
    (tmp_path / "a" / "adapter").mkdir()
    with pytest.raises(ValueError, match="no adapter"):
        mean([one, net(tmp_path / "d", [1.0])], tmp_path / "out")
