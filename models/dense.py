"""Texts to vectors: one float32 vector of unit length per text, from any sentence-transformers model.

sentence-transformers loads the model; tokenising, batching and padding are ours, because the service forms
batches across requests and must know what a text costs before a net sees it. Where the CPU computes in
bfloat16 natively a passage costs less than half of float32, at a cosine above 0.999 to it: the default there.
The last bits of a vector depend on the batch it was in, as everywhere; its meaning does not.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Pooling, Transformer
from transformers.utils import logging as transformers_logging

from models import Kind
from models.load import DEFAULT_DENSE, Weights, resolve
from models.packing import pack
from models.precision import DType, prepared
from models.tokens import copied, padded, spans

BUDGET = 2048
"""Padded tokens per forward: enough to fill the cores, little enough to stay in their caches. (MiniLM on two
cores encodes 15 to 35 % fewer passages a second with 8192, and 5 to 10 % fewer with 512.)"""

PROMPTS: dict[Kind, tuple[str, ...]] = {"query": ("query",), "document": ("document", "passage", "corpus")}
"""Under which names models keep the text that goes before a question or a passage."""


class DenseEncoder:
    """A sentence encoder on one device; its methods may be called from any thread.

    `fingerprint` covers weights, tokeniser, prompts, pooling and truncation; `dtype` is a choice of the
    machine and not part of it, since vectors of either can be compared.
    """

    def __init__(self, weights: Weights, net: SentenceTransformer) -> None:
        self._net = net.eval()
        self._prompts = {kind: _prompt(net, names) for kind, names in PROMPTS.items()}
        tokenizer = net.tokenizer
        self._whole = copied(tokenizer.backend_tokenizer)
        self._cut = copied(tokenizer.backend_tokenizer, tokenizer.model_max_length)
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
        path, kind = prepared(weights, device, dtype, cache)
        transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
        net = SentenceTransformer(
            str(path),
            device=device,
            local_files_only=True,
            model_kwargs={"use_safetensors": True, "dtype": kind},
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
        ids, real = padded(tokens, self._pad)
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
        return spans(self._whole, texts)


def _prompt(net: SentenceTransformer, names: Sequence[str]) -> str:
    """The first of these prompts that the model's own configuration fills; "" for the many that have none."""
    return next((prompt for name in names if (prompt := net.prompts.get(name))), "")


def _check(name: str, net: SentenceTransformer) -> None:
    if not isinstance(net[0], Transformer):
        raise ValueError(f"{name} starts with {type(net[0]).__name__}, not with a transformer")
    if any(isinstance(module, Pooling) and not module.include_prompt for module in net):
        raise ValueError(f"{name} leaves its prompt out of the pooling, which is not supported")
