"""How weights become a net, and in which number format it computes: the fastest one that means the same.

Where the CPU computes in bfloat16 natively a passage costs a half to a third of float32. Weights that are
stored in float32 are then rounded once, into a copy that later starts map (`models.load.converted`).
"""

import shutil
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import load_file, save_file
from transformers.utils import logging as transformers_logging

from models.load import PICKLED, SAFE, Weights, converted

DType = Literal["auto", "float32", "bfloat16"]


def fast_dtype(device: str) -> Literal["float32", "bfloat16"]:
    """The number format that is fastest on `device` without losing meaning."""
    if device.startswith("cuda"):
        return "bfloat16"
    able = torch.cpu.get_capabilities()
    # Other CPUs compute bfloat16 by way of float32, which is slower than float32 alone.
    native = able.get("avx512_bf16") or able.get("amx_bf16")
    return "bfloat16" if device == "cpu" and native else "float32"


def prepared(weights: Weights, device: str, dtype: DType, cache: Path | None) -> tuple[Path, torch.dtype]:
    """The folder to load and the format to compute in: with a `cache`, bfloat16 is converted only once."""
    kind = fast_dtype(device) if dtype == "auto" else dtype
    path = weights.path
    if cache is not None and kind == "bfloat16":
        path = converted(weights, kind, _to_bfloat16, cache)
    return path, torch.bfloat16 if kind == "bfloat16" else torch.float32


def pretrained(kind: Any, path: Path, device: str, dtype: torch.dtype, *, pooler: bool = False) -> Any:
    """The model of a folder by one of the `AutoModel…` classes of `transformers`, ready to compute.

    Raises ValueError if the folder lacks some of its weights, which would else be random; those of a pooler,
    which many folders lack, count only if it is part of what is computed.
    """
    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    net, report = kind.from_pretrained(
        path, use_safetensors=True, local_files_only=True, dtype=dtype, output_loading_info=True
    )
    missing = sorted(key for key in report["missing_keys"] if pooler or "pooler" not in key)
    if missing or report["mismatched_keys"]:
        raise ValueError(
            f"{path} lacks weights of {type(net).__name__}: {', '.join(missing) or 'other shapes'}"
        )
    return net.to(device).eval()


def _to_bfloat16(source: Path, target: Path) -> None:
    """Copy a model folder, its matrices rounded to bfloat16 as loading would round them.

    Vectors stay as they are: they are small, and a table of IDF is used as it is stored.
    """
    left = shutil.ignore_patterns(*(f"*{suffix}" for suffix in (SAFE, *PICKLED)))
    shutil.copytree(source, target, dirs_exist_ok=True, ignore=left)
    for file in source.rglob(f"*{SAFE}"):
        tensors = {
            key: tensor.to(torch.bfloat16) if tensor.is_floating_point() and tensor.ndim > 1 else tensor
            for key, tensor in load_file(file).items()
        }
        save_file(tensors, target / file.relative_to(source), {"format": "pt"})
