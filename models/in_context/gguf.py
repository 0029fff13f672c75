"""GGUF to safetensors, once: a file of quantised weights becomes a folder that any loader maps.

A GGUF file holds everything in one, its matrices in blocks of few bits; what computes here wants matrices, a
configuration and a tokeniser. `transformers` reads these out of it in some 15 seconds for 135 million
parameters, most of which goes into the vocabulary, so the result is kept, rounded to bfloat16.
"""

import logging
import struct
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
)
from transformers import AutoModel, AutoTokenizer, GgufConfig, modeling_gguf_pytorch_utils
from transformers.utils import logging as transformers_logging

from models.load import GGUF, SAFE, Weights, converted

KIND = "gguf-bfloat16"

DAMAGED = (ValueError, LookupError, TypeError, OverflowError, struct.error)
"""What the parsing of a file by positions ends in that are wrong."""


def gguf_file(folder: Path) -> Path | None:
    """The GGUF file of a folder, if it has no safetensors."""
    return None if any(folder.rglob(f"*{SAFE}")) else next(iter(sorted(folder.glob(f"*{GGUF}"))), None)


def as_safetensors(weights: Weights, cache: Path) -> Path:
    """The folder in `cache` with what the GGUF file of `weights` holds, made if it is not there yet.

    It has model.safetensors (bfloat16, without a language model's head), config.json, tokenizer.json and the
    chat template. Raises ValueError for a file that is damaged or of an architecture `transformers` cannot
    read.
    """
    return converted(weights, KIND, partial(_convert, weights.name), cache)


def _convert(name: str, source: Path, target: Path) -> None:
    file = gguf_file(source)
    if file is None:
        raise ValueError(f"{source} has no GGUF file")
    with _shown(f"Converting {file.name}, once") as step, quiet():
        tokenizer = step("tokeniser", lambda: _read(name, file, _tokenizer))
        net = step("weights", lambda: _read(name, file, _net))
        step("writing", lambda: _write(tokenizer, net, target))


def _read(name: str, file: Path, read: Callable[[Path], Any]) -> Any:
    try:
        return read(file)
    except DAMAGED as error:
        raise ValueError(f"{name} could not be read from {file.name}: {error}") from error


def _tokenizer(file: Path) -> Any:
    return AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name, local_files_only=True)


def _net(file: Path) -> Any:
    net, report = AutoModel.from_pretrained(
        file.parent,
        gguf_file=file.name,
        dtype=torch.bfloat16,
        quantization_config=GgufConfig(dequantize=True),
        output_loading_info=True,
        local_files_only=True,
    )
    if missing := sorted([*report["missing_keys"], *map(str, report["mismatched_keys"])]):
        raise ValueError(f"it lacks weights of {type(net).__name__}: {', '.join(missing)}")
    return net


def _write(tokenizer: Any, net: Any, target: Path) -> None:
    tokenizer.save_pretrained(target)
    net.save_pretrained(target)


@contextmanager
def _shown(title: str) -> Iterator[Callable[[str, Callable[[], Any]], Any]]:
    """How steps are run that are shown on standard error: as a bar, or as one line if it is no terminal."""
    console = Console(file=sys.stderr, highlight=False)
    if not console.is_terminal:
        console.print(f"{title} …", markup=False, soft_wrap=True)
        yield lambda _, run: run()
        return
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console) as progress:
        task = progress.add_task(title, total=3)

        def step(what: str, run: Callable[[], Any]) -> Any:
            progress.update(task, description=f"{title}: {what}")
            found = run()
            progress.advance(task)
            return found

        yield step


@contextmanager
def quiet() -> Iterator[None]:
    """Nothing from `transformers` on standard error but errors.

    It shows bars beside ours, one of which its own switch misses, and reports that a language model's head is
    left out, which is on purpose; what else it would report our loaders raise.
    """
    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    module: Any = modeling_gguf_pytorch_utils
    logger, bar = logging.getLogger("transformers"), module.tqdm
    level = logger.level
    logger.setLevel(logging.ERROR)
    module.tqdm = partial(bar, disable=True)
    try:
        yield
    finally:
        module.tqdm = bar
        logger.setLevel(level)
