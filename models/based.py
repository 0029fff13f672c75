"""Folders that name the weights they are for, instead of holding them.

A head, an adapter and a recipe take a few megabytes, and the net below them is often one that is there
already. So `in_context.json`, `late.json` and `cross.json` may say `model`, the name of base weights, and
`adapter`, that of LoRA matrices which are added to these (see `models.adapter`). Names that are paths are
relative to the folder, and "." is the folder itself.
"""

import json
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import torch

from models.adapter import CONFIG as ADAPTER
from models.load import Weights, fingerprint, is_path, resolve, weights_in
from models.precision import DType, prepared

PLAIN = ("Model", "ForMaskedLM", "ForPreTraining")
"""How the architectures of encoders end whose states can be used as they are."""


@dataclass(frozen=True)
class Based:
    """A folder that was asked for, and what is loaded with it.

    `weights` are its name and path, with a fingerprint of its files, of `base` and of `adapter`. `base` is
    the folder itself where that holds its net.
    """

    weights: Weights
    base: Weights
    adapter: Weights | None = None

    def prepared(self, device: str, dtype: DType, cache: Path | None) -> tuple[Path, torch.dtype]:
        """The folder that the net is loaded from, and the format to compute in (see `models.precision`).

        An adapter is added to weights as they are stored, so for one no copy is rounded and kept.
        """
        return prepared(self.base, device, dtype, None if self.adapter else cache)


def based(name: str, place: Path, file: str, model: str | None, adapter: str | None) -> Based:
    """The folder `place`, called `name`, with what `file` in it names; `model` None is the folder itself.

    Raises WeightsMissing as `resolve` does, and ValueError for a base that is no net.
    """
    own = model is None or (is_path(model) and _inside(model, place).resolve() == place.resolve())
    base = weights_in(place, name) if own else named(str(model), place)
    added = None if adapter is None else named(adapter, place)
    refuse_adapter(base, file)
    if not _has_net(base.path):
        raise ValueError(
            f"{base.name} holds no net, only what is for one: name its weights in {file}, as model"
        )
    others = ([] if own else [base.fingerprint]) + ([] if added is None else [added.fingerprint])
    first = base.fingerprint if own else fingerprint(place)
    return Based(Weights(name, place, joint(first, *others)), base, added)


def named(name: str, place: Path, *, gguf: bool = False) -> Weights:
    """The weights that a recipe in the folder `place` names. Raises WeightsMissing as `resolve` does."""
    return resolve(str(_inside(name, place)) if is_path(name) else name, gguf=gguf)


def joint(first: str, *others: str) -> str:
    """One fingerprint of several: of one alone its own, else 16 hex digits of their sha256 in order."""
    return sha256(json.dumps([first, *others]).encode()).hexdigest()[:16] if others else first


def refuse_adapter(base: Weights, file: str) -> None:
    """Raise ValueError for an adapter where a net should be; `file` is the recipe that may name both.

    Beside a net `transformers` would add it without being asked.
    """
    if not (base.path / ADAPTER).is_file():
        return
    if not _has_net(base.path):
        raise ValueError(f"{base.name} is an adapter: name it beside its weights, in a folder with a {file}")
    raise ValueError(f"{base.name} holds an adapter beside its weights: put it into a folder of its own")


def _has_net(path: Path) -> bool:
    return any((path / name).is_file() for name in ("config.json", "modules.json"))


def _inside(name: str, place: Path) -> Path:
    return place / Path(name).expanduser()
