import sys
from concurrent.futures import ThreadPoolExecutor
from io import StringIO
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoTokenizer

from models.in_context import gguf as converter
from models.in_context.gguf import as_safetensors
from models.in_context.opened import load_model, opened
from models.load import SMOLLM2, resolve
from tests.models.in_context.gguf_files import tiny_gguf


def test_a_file_of_exact_numbers_gives_the_net_it_was_written_of(tmp_path: Path) -> None:
    folder, plain = tiny_gguf(tmp_path, kind="F32")
    made = load_file(
        as_safetensors(resolve(str(folder), gguf=True), tmp_path / "cache") / "model.safetensors"
    )
    wanted = load_file(plain / "model.safetensors")
    assert {f"model.{name}" for name in made} == set(wanted) - {"lm_head.weight"}
    assert all(torch.equal(tensor, wanted[f"model.{name}"].bfloat16()) for name, tensor in made.items())


def test_blocks_of_eight_bits_are_read_as_numbers(tmp_path: Path) -> None:
    folder, plain = tiny_gguf(tmp_path, kind="Q8_0")
    made = load_file(
        as_safetensors(resolve(str(folder), gguf=True), tmp_path / "cache") / "model.safetensors"
    )
    wanted = load_file(plain / "model.safetensors")["model.layers.1.mlp.up_proj.weight"]
    difference = (made["layers.1.mlp.up_proj.weight"].float() - wanted).abs().max()
    assert 0 < difference < wanted.abs().max() * (0.5 / 127 + 2**-8)


def test_the_tokeniser_comes_along(tmp_path: Path) -> None:
    folder, plain = tiny_gguf(tmp_path)
    made = AutoTokenizer.from_pretrained(as_safetensors(resolve(str(folder), gguf=True), tmp_path / "cache"))
    wanted = AutoTokenizer.from_pretrained(plain)
    text = "<|im_start|>the tide of 1492, Über alles\n\n<|im_end|>"
    said = [{"role": "user", "content": "the moon"}]
    assert made(text)["input_ids"] == wanted(text)["input_ids"]
    assert made.apply_chat_template(said, tokenize=False) == wanted.apply_chat_template(said, tokenize=False)


def test_a_file_without_some_of_its_weights_is_refused_by_their_names(tmp_path: Path) -> None:
    folder, _ = tiny_gguf(tmp_path, without=["blk.1.ffn_up.weight"])
    with pytest.raises(
        ValueError, match=r"tiny\.Q8_0\.gguf: it lacks .* Qwen2Model: layers\.1\.mlp\.up_proj"
    ):
        as_safetensors(resolve(str(folder), gguf=True), tmp_path / "cache")


@pytest.mark.parametrize("kept", [0, 4, 100, 2_000, 9_000, 60_000])
def test_a_file_that_was_cut_off_is_refused_and_leaves_nothing(kept: int, tmp_path: Path) -> None:
    folder, _ = tiny_gguf(tmp_path)
    file = folder / "tiny.Q8_0.gguf"
    file.write_bytes(file.read_bytes()[:kept])
    with pytest.raises(ValueError, match=r"could not be read from tiny\.Q8_0\.gguf"):
        as_safetensors(resolve(str(folder), gguf=True), tmp_path / "cache")
    assert not (
        tmp_path / "cache" / f"{resolve(str(folder), gguf=True).fingerprint}-{converter.KIND}"
    ).exists()


def test_it_is_said_once_in_one_line_where_nobody_watches(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, _ = tiny_gguf(tmp_path)
    capsys.readouterr()
    for _ in range(2):
        as_safetensors(resolve(str(folder), gguf=True), tmp_path / "cache")
    assert capsys.readouterr() == ("", "Converting tiny.Q8_0.gguf, once …\n")


def test_a_terminal_sees_a_bar_of_ours_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, _ = tiny_gguf(tmp_path)
    terminal = StringIO()
    monkeypatch.setattr(terminal, "isatty", lambda: True)
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    as_safetensors(resolve(str(folder), gguf=True), tmp_path / "cache")
    shown = terminal.getvalue()
    assert "Converting tiny.Q8_0.gguf, once: writing" in shown
    assert "3/3" in shown
    assert "de-quantizing" not in shown


def test_two_at_once_convert_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    weights, cache = resolve(str(tiny_gguf(tmp_path)[0]), gguf=True), tmp_path / "cache"
    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(lambda _: as_safetensors(weights, cache), range(2))
    assert first == second
    assert capsys.readouterr().err.count("Converting") == 1


def test_the_default_decoder_knows_what_language_is(smollm2: Path) -> None:
    """Its head is its embedding, so what comes next can be said without one."""
    net, tokenizer = load_model(opened(SMOLLM2, smollm2), "cpu", "float32")
    ids = tokenizer("The capital of France is", return_tensors="pt")["input_ids"]
    with torch.inference_mode():
        following = net.embed_tokens.weight @ net(input_ids=ids).last_hidden_state[0, -1]
    assert tokenizer.decode([int(following.argmax())]) == " Paris"
