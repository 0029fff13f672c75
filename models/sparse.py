"""Texts to learned sparse vectors: a weight above zero for a few hundred entries of the net's own vocabulary.

SPLADE (Formal et al. 2021, arXiv 2109.10086): the masked-language-model head says at every position which
words would fit there; the largest such logit of a word becomes its weight, `log1p(relu(max_i H_ij))`, so a
passage about tides has a weight for "ocean" too. Positions of special tokens do not vote and special tokens get
no weight: they would be long posting lists without meaning.
"""

import gzip
import json
from collections.abc import Callable, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer
from transformers import AutoModelForMaskedLM, AutoTokenizer
from transformers.utils import logging as transformers_logging

from models import Kind
from models.csr import Csr, concatenate, from_dense
from models.dense import DType
from models.load import DEFAULT_SPARSE, Weights, resolve
from models.packing import pack

BUDGET = 2048
"""Padded tokens per forward."""

CEILING = 8.0
"""No weight is above this: log1p of a logit of 2,980."""

VOCABULARY = 65_536
"""Most vocabulary entries: the index stores them in 16 bits."""


class SparseEncoder:
    """A learned sparse encoder on one device; its methods may be called from any thread.

    `ids` maps the pieces of its vocabulary to their numbers; `idf` are the weights of question pieces that
    came with the model, float32 [vocabulary], or None.
    """

    def __init__(self, weights: Weights, net: Any, tokenizer: Any) -> None:
        self._net = net.eval()
        backend = tokenizer.backend_tokenizer
        self._whole = _tokenizer(backend)
        self._cut = _tokenizer(backend, tokenizer.model_max_length)
        self._pad: int = tokenizer.pad_token_id or 0
        self._special = np.array(sorted(tokenizer.all_special_ids), np.int64)
        self._mute = np.setdiff1d(self._special, [tokenizer.unk_token_id or 0])
        self.name = weights.name
        self.fingerprint = weights.fingerprint
        self.ids: Mapping[str, int] = self._whole.get_vocab()
        self.vocabulary = int(net.config.vocab_size)
        self.max_tokens = int(tokenizer.model_max_length)
        self.ceiling = CEILING
        self.dtype = str(net.dtype).removeprefix("torch.")
        self.idf: NDArray[np.float32] | None = None
        if self.vocabulary > VOCABULARY:
            raise ValueError(
                f"{self.name} has a vocabulary of {self.vocabulary} words; the index holds {VOCABULARY} at most"
            )

    @classmethod
    def load(
        cls,
        name: str = DEFAULT_SPARSE,
        *,
        device: str = "cpu",
        dtype: DType = "auto",
        cache: Path | None = None,
    ) -> Self:
        """Load the encoder called `name` (see `models.load`); raises WeightsMissing or ValueError."""
        weights = resolve(name)
        kind = "float32" if dtype == "auto" else dtype
        transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
        net = AutoModelForMaskedLM.from_pretrained(
            weights.path, use_safetensors=True, local_files_only=True, dtype=getattr(torch, kind)
        )
        tokenizer = AutoTokenizer.from_pretrained(weights.path, local_files_only=True)
        return cls(weights, net.to(device), tokenizer)

    def tokenize(self, texts: Sequence[str], kind: Kind = "document") -> list[list[int]]:
        """Token ids per text, special tokens included, cut to `max_tokens`; never empty."""
        return [encoding.ids or [self._pad] for encoding in self._cut.encode_batch_fast(list(texts))]

    def forward(self, tokens: Sequence[Sequence[int]]) -> Csr:
        """One padded batch through the net: a row per text, in the given order."""
        lengths = np.fromiter(map(len, tokens), np.int64, len(tokens))
        real = np.arange(lengths.max()) < lengths[:, None]
        ids = np.full(real.shape, self._pad, np.int64)
        ids[real] = np.fromiter(chain.from_iterable(tokens), np.int64, int(lengths.sum()))
        voting = torch.from_numpy(real & ~np.isin(ids, self._mute))
        with torch.inference_mode():
            batch = {"input_ids": torch.from_numpy(ids), "attention_mask": torch.from_numpy(real * 1)}
            logits = self._net(**batch).logits * voting[:, :, None]
            best = logits.amax(1).float().relu().log1p().clamp(max=self.ceiling)
            best[:, torch.from_numpy(self._special)] = 0.0
        return from_dense(best.numpy())

    def finish(self, vectors: Csr, kind: Kind) -> Csr:
        """What differs between questions and passages after the forward."""
        return vectors

    def encode(
        self,
        texts: Sequence[str],
        kind: Kind = "document",
        budget: int = BUDGET,
        progress: Callable[[int], None] | None = None,
    ) -> Csr:
        """Tokenise, batch by padded tokens, forward, finish: a row per text, in the order of `texts`.

        `progress` is called after each forward with the number of texts it encoded.
        """
        tokens = self.tokenize(texts, kind)
        batches = pack([len(ids) for ids in tokens], budget)
        parts = []
        for batch in batches:
            parts.append(self.forward([tokens[position] for position in batch]))
            if progress is not None:
                progress(len(batch))
        order = np.argsort(np.fromiter(chain.from_iterable(batches), np.int64, len(texts)))
        return self.finish(concatenate(parts).take(order), kind)

    def offsets(self, texts: Sequence[str]) -> list[NDArray[np.int64]]:
        """Character (start, end) of every word piece of each whole text: int64 [pieces, 2], nothing cut."""
        encodings = self._whole.encode_batch(list(texts), add_special_tokens=False)
        return [np.array(encoding.offsets, np.int64).reshape(-1, 2) for encoding in encodings]

    def pieces(self, texts: Sequence[str]) -> list[NDArray[np.int32]]:
        """Distinct pieces of each text, cut as `tokenize` cuts passages: int32, ascending, none special."""
        found = (np.unique(np.array(ids, np.int32)) for ids in self.tokenize(texts))
        return [np.setdiff1d(ids, self._special).astype(np.int32) for ids in found]

    def words(self, terms: Sequence[int] | NDArray[np.integer]) -> list[str]:
        """Vocabulary entries as a reader would write them ("##s" for a piece that continues a word)."""
        return [self._whole.decode([int(term)], skip_special_tokens=False) for term in terms]


def idf_query(pieces: NDArray[np.int32], idf: NDArray[np.float32]) -> Csr:
    """One row: `max(0, idf_j)` for each distinct piece, once however often it occurs.

    `pieces` as `SparseEncoder.pieces` gives them. Geng et al. 2024, arXiv 2411.04403.
    """
    terms = np.unique(pieces).astype(np.int32)
    weights = idf[terms].astype(np.float32)
    terms, weights = terms[weights > 0], weights[weights > 0]
    return Csr(np.array([0, len(terms)], np.int64), terms, weights)


def read_idf(path: Path, ids: Mapping[str, int], vocabulary: int) -> NDArray[np.float32]:
    """Weights of question pieces from a JSON object {piece: weight}, gzipped if `path` ends in .gz.

    float32 [vocabulary]; pieces that the file lacks weigh 1.0, negative weights become 0. Raises ValueError.
    """
    stored = path.read_bytes()
    table = json.loads(gzip.decompress(stored) if path.suffix == ".gz" else stored)
    unknown = [piece for piece in table if piece not in ids]
    if unknown:
        raise ValueError(f"{path} weighs {unknown[0]!r}, which is no piece of this encoder's vocabulary")
    weights = np.ones(vocabulary, np.float32)
    weights[[ids[piece] for piece in table]] = list(table.values())
    return np.maximum(weights, 0.0)


def _tokenizer(backend: Tokenizer, most: int | None = None) -> Tokenizer:
    copy = Tokenizer.from_str(backend.to_str())
    copy.no_padding()
    if most is None:
        copy.no_truncation()
    else:
        copy.enable_truncation(most)
    return copy
