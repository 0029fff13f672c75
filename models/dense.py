"""Texts to vectors: one float32 vector of unit length per text, from any sentence-transformers model.

sentence-transformers loads the model; tokenising, batching and padding are ours, because the service forms
batches across requests and must know what a text costs before a net sees it. Where the CPU computes in
bfloat16 natively a passage costs less than half of float32, at a cosine above 0.999 to it: the default there.
The last bits of a vector depend on the batch it was in, as everywhere; its meaning does not.
"""

import shutil
from collections.abc import Callable, Sequence
from itertools import chain
from pathlib import Path
from typing import Literal, Self

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Pooling, Transformer
from tokenizers import Tokenizer
from transformers.utils import logging as transformers_logging

from models import Kind
from models.load import DEFAULT_DENSE, SAFE, Weights, converted, resolve
from models.packing import pack

BUDGET = 2048
"""Padded tokens per forward: enough to fill the cores, little enough to stay in their caches. (MiniLM on two
cores encodes 15 to 35 % fewer passages a second with 8192, and 5 to 10 % fewer with 512.)"""

PROMPTS: dict[Kind, tuple[str, ...]] = {"query": ("query",), "document": ("document", "passage", "corpus")}
"""Under which names models keep the text that goes before a question or a passage."""

DType = Literal["auto", "float32", "bfloat16"]


class DenseEncoder:
    """A sentence encoder on one device; its methods may be called from any thread.

    `fingerprint` covers weights, tokeniser, prompts, pooling and truncation; `dtype` is a choice of the
    machine and not part of it, since vectors of either can be compared.
    """

    def __init__(self, weights: Weights, net: SentenceTransformer) -> None:
        self._net = net.eval()
        self._prompts = {kind: _prompt(net, names) for kind, names in PROMPTS.items()}
        tokenizer = net.tokenizer
        # Tokenizers of our own: `transformers` switches truncation and padding on the shared one at every
        # call, which fails ("Already borrowed") as soon as two threads tokenise.
        self._whole = _tokenizer(tokenizer.backend_tokenizer)
        self._cut = _tokenizer(tokenizer.backend_tokenizer, tokenizer.model_max_length)
        self._pad: int = tokenizer.pad_token_id or 0
        self.name = weights.name
        self.fingerprint = weights.fingerprint
        self.dim = int(net.get_embedding_dimension() or 0)
        self.max_tokens = int(tokenizer.model_max_length)
        self.dtype = str(net.dtype).removeprefix("torch.")

    @classmethod
    def load(
        cls,
        name: str = DEFAULT_DENSE,
        *,
        device: str = "cpu",
        dtype: DType = "auto",
        cache: Path | None = None,
    ) -> Self:
        """Load the encoder called `name` (see `models.load`); raises WeightsMissing or ValueError.

        `dtype` "auto" is bfloat16 where the device computes in it natively, else float32. With a `cache`
        directory weights in bfloat16 are converted once and then mapped, instead of at every start.
        """
        weights = resolve(name)
        kind = fast_dtype(device) if dtype == "auto" else dtype
        path = weights.path
        if cache is not None and kind == "bfloat16":
            path = converted(weights, kind, _to_bfloat16, cache)
        transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
        net = SentenceTransformer(
            str(path),
            device=device,
            local_files_only=True,
            model_kwargs={"use_safetensors": True, "dtype": getattr(torch, kind)},
        )
        _check(name, net)
        return cls(weights, net)

    def tokenize(self, texts: Sequence[str], kind: Kind = "document") -> list[list[int]]:
        """Token ids per text, prompt and special tokens included, cut to `max_tokens`; never empty."""
        prompt = self._prompts[kind]
        encodings = self._cut.encode_batch_fast([prompt + text for text in texts])
        return [encoding.ids or [self._pad] for encoding in encodings]

    def forward(self, tokens: Sequence[Sequence[int]]) -> NDArray[np.float32]:
        """One padded batch through the net: float32 [len(tokens), dim], unit length, in the given order."""
        lengths = np.fromiter(map(len, tokens), np.int64, len(tokens))
        real = np.arange(lengths.max()) < lengths[:, None]
        ids = np.full(real.shape, self._pad, np.int64)
        ids[real] = np.fromiter(chain.from_iterable(tokens), np.int64, int(lengths.sum()))
        with torch.inference_mode():
            batch = {
                "input_ids": torch.from_numpy(ids),
                "attention_mask": torch.from_numpy(real.astype(np.int64)),
            }
            output = self._net({key: value.to(self._net.device) for key, value in batch.items()})
            vectors = torch.nn.functional.normalize(output["sentence_embedding"].float(), dim=-1)
            found: NDArray[np.float32] = vectors.cpu().numpy()
        return found

    def encode(
        self,
        texts: Sequence[str],
        kind: Kind = "document",
        budget: int = BUDGET,
        progress: Callable[[int], None] | None = None,
    ) -> NDArray[np.float32]:
        """Tokenise, batch by padded tokens, forward: float32 [len(texts), dim], in the order of `texts`.

        `progress` is called after each forward with the number of texts it encoded.
        """
        tokens = self.tokenize(texts, kind)
        vectors = np.empty((len(texts), self.dim), np.float32)
        for batch in pack([len(ids) for ids in tokens], budget):
            vectors[batch] = self.forward([tokens[position] for position in batch])
            if progress is not None:
                progress(len(batch))
        return vectors

    def offsets(self, texts: Sequence[str]) -> list[NDArray[np.int64]]:
        """Character (start, end) of every word piece of each whole text: int64 [pieces, 2], nothing cut."""
        encodings = self._whole.encode_batch(list(texts), add_special_tokens=False)
        return [np.array(encoding.offsets, np.int64).reshape(-1, 2) for encoding in encodings]


def fast_dtype(device: str) -> Literal["float32", "bfloat16"]:
    """The number format that is fastest on `device` without losing meaning."""
    if device.startswith("cuda"):
        return "bfloat16"
    able = torch.cpu.get_capabilities()
    # Other CPUs compute bfloat16 by way of float32, which is slower than float32 alone.
    native = able.get("avx512_bf16") or able.get("amx_bf16")
    return "bfloat16" if device == "cpu" and native else "float32"


def _tokenizer(backend: Tokenizer, most: int | None = None) -> Tokenizer:
    """A copy of `backend` without padding that cuts to `most` tokens, or never."""
    copy = Tokenizer.from_str(backend.to_str())
    copy.no_padding()
    if most is None:
        copy.no_truncation()
    else:
        copy.enable_truncation(most)
    return copy


def _prompt(net: SentenceTransformer, names: Sequence[str]) -> str:
    """The first of these prompts that the model's own configuration fills; "" for the many that have none."""
    return next((prompt for name in names if (prompt := net.prompts.get(name))), "")


def _check(name: str, net: SentenceTransformer) -> None:
    if not isinstance(net[0], Transformer):
        raise ValueError(f"{name} starts with {type(net[0]).__name__}, not with a transformer")
    if any(isinstance(module, Pooling) and not module.include_prompt for module in net):
        raise ValueError(f"{name} leaves its prompt out of the pooling, which is not supported")


def _to_bfloat16(source: Path, target: Path) -> None:
    """Copy a model folder, its floating-point weights rounded to bfloat16 as loading would round them."""
    shutil.copytree(source, target, dirs_exist_ok=True, ignore=shutil.ignore_patterns("*.bin", f"*{SAFE}"))
    for file in source.rglob(f"*{SAFE}"):
        tensors = {
            key: tensor.to(torch.bfloat16) if tensor.is_floating_point() else tensor
            for key, tensor in load_file(file).items()
        }
        save_file(tensors, target / file.relative_to(source), {"format": "pt"})
