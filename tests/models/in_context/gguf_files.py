"""GGUF files of tiny decoders, as llama.cpp's converter would write them."""

import json
from collections.abc import Iterable
from pathlib import Path

import gguf
import numpy as np
from safetensors.torch import load_file

from tests.nets import tiny_causal

PARTS = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


def tiny_gguf(directory: Path, *, without: Iterable[str] = (), kind: str = "Q8_0") -> tuple[Path, Path]:
    """Write a Qwen2 of two layers as GGUF; returns the folder of the file and that of the safetensors.

    Its matrices are of the block format `kind`, its vectors float32. Tensors named in `without` are left out.
    """
    plain = tiny_causal(directory / "plain", "qwen2", layers=2, chat=True)
    folder = directory / "gguf"
    folder.mkdir()
    writer = gguf.GGUFWriter(folder / f"tiny.{kind}.gguf", "qwen2")
    config = json.loads((plain / "config.json").read_text())
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_freq_base(config["rope_parameters"]["rope_theta"])
    _add_tokens(writer, plain)
    for name, tensor in load_file(plain / "model.safetensors").items():
        if _name(name) not in without:
            _add(writer, _name(name), tensor.float().numpy(), gguf.GGMLQuantizationType[kind])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return folder, plain


def _add_tokens(writer: gguf.GGUFWriter, plain: Path) -> None:
    model = json.loads((plain / "tokenizer.json").read_text())["model"]
    tokens = sorted(model["vocab"], key=model["vocab"].get)
    kinds = [gguf.TokenType.CONTROL] * 3 + [gguf.TokenType.NORMAL] * (len(tokens) - 3)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    writer.add_token_list(tokens)
    writer.add_token_types(kinds)
    writer.add_token_merges([" ".join(pair) for pair in model["merges"]])
    writer.add_pad_token_id(0)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_chat_template(json.loads((plain / "tokenizer_config.json").read_text())["chat_template"])


def _add(writer: gguf.GGUFWriter, name: str, values: np.ndarray, kind: gguf.GGMLQuantizationType) -> None:
    if values.ndim == 1:
        writer.add_tensor(name, values)
    else:
        writer.add_tensor(name, gguf.quants.quantize(values, kind), raw_dtype=kind)


def _name(name: str) -> str:
    whole = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}
    stem, _, last = name.rpartition(".")
    if stem in whole:
        return f"{whole[stem]}.{last}"
    layer, _, part = stem.removeprefix("model.layers.").partition(".")
    return f"blk.{layer}.{PARTS[part]}.{last}"
