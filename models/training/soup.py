"""The mean of several runs' weights, which is often better than each where nothing was trained on.

Runs that began with the same weights end in places between which the loss is low, and noise of one run is
not that of another (Wortsman et al. 2022, "Model soups", arXiv 2203.05482, the uniform soup). Nets with an
adapter are not for it: the mean of two products is not the product of the means.
"""

import re
import shutil
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from models.load import SAFE
from models.training.card import CARD, SUMS, write_sums


def mean(folders: Sequence[Path], out: Path) -> None:
    """Write to `out` the files of the first folder, but of the weights the mean of all folders.

    Means are taken in float32 and written in the first folder's formats. The card holds those
    of the runs. ValueError for fewer than two folders, for an adapter, and for nets that differ in the
    names or shapes of their weights, or in their other files.
    """
    if len(folders) < 2:
        raise ValueError("a mean of weights needs two folders at least")
    first, *others = folders
    files = sorted(path for path in first.iterdir() if path.is_file() and path.name not in (CARD, SUMS))
    names = [path.name for path in files if path.suffix == SAFE]
    if not names or any((folder / "adapter").is_dir() for folder in folders):
        raise ValueError(f"{first} must hold whole weights as {SAFE}, and no adapter")
    for path in files:
        _check_same(path, others)
    out.mkdir(parents=True, exist_ok=True)
    for path in files:
        if path.suffix == SAFE:
            save_file(_mean([folder / path.name for folder in folders]), out / path.name, {"format": "pt"})
        else:
            shutil.copyfile(path, out / path.name)
    (out / CARD).write_text(_card(folders), "utf-8")
    write_sums(out)


def _card(folders: Sequence[Path]) -> str:
    """What is known of the runs, each a level lower."""
    begin = f"# The mean of the weights of {len(folders)} runs\n\n"
    cards = [folder / CARD for folder in folders if (folder / CARD).is_file()]
    texts = [re.sub("^#", "##", card.read_text("utf-8"), flags=re.MULTILINE) for card in cards]
    return begin + "\n".join(texts)


def _mean(files: Sequence[Path]) -> dict[str, Tensor]:
    read = [load_file(file) for file in files]
    shapes = [{name: weight.shape for name, weight in each.items()} for each in read]
    for file, each in zip(files, shapes, strict=True):
        if each != shapes[0]:
            raise ValueError(f"{file} and {files[0]} are of different nets")
    return {
        name: torch.stack([each[name].float() for each in read]).mean(0).to(weight.dtype).contiguous()
        for name, weight in read[0].items()
    }


def _check_same(path: Path, folders: Sequence[Path]) -> None:
    for folder in folders:
        other = folder / path.name
        if not other.is_file():
            raise ValueError(f"{folder} has no {path.name}, as {path.parent} has")
        if path.suffix != SAFE and other.read_bytes() != path.read_bytes():
            raise ValueError(f"{other} is not as {path}: only nets of one kind have a mean")
