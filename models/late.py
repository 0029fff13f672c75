"""Texts to token vectors: a float32 vector of unit length for every token that counts.

Late interaction (Khattab & Zaharia 2020, arXiv 2004.12832) compares every token of a question with every
token of a passage and adds up the best matches, so passages keep a vector a token. `models.late_folder`
reads from the folder which net that is; the default is none that was trained for it: the token states of
a dense encoder, which rank well already.

Punctuation of passages gets no vector (nothing that is asked is found by a comma), questions keep all.
"""

import json
import logging
from collections.abc import Callable, Iterable, Sequence
from hashlib import sha256
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Encoding

from models import Kind
from models.based import Based
from models.late_folder import Opened, find, open_folder
from models.late_layout import Pieces, batched
from models.load import DEFAULT_LATE, Weights
from models.packing import pack
from models.precision import DType
from models.tokens import copied, spans
from models.traced import traced

log = logging.getLogger(__name__)

BUDGET = 2048
"""Padded tokens per forward: enough to fill the cores, little enough to stay in their caches."""


SAMPLED = 48
"""Words of a sample text."""


class Vectors(NamedTuple):
    """Of a text: a vector for each token that counts, float32 [rows, dim], and one of all, float32 [dim]."""

    tokens: NDArray[np.float32]
    sentence: NDArray[np.float32] | None


class LateEncoder:
    """An encoder of tokens on one device; its methods may be called from any thread.

    `dim` is the length of its vectors; `max_tokens` cuts passages (questions may be cut shorter).
    `fingerprint` covers weights, tokeniser, head, markers, prompts, the filling of questions and which
    tokens get no vector; `dtype` is a choice of the machine and not part of it, since vectors of either can
    be compared. `pooled` is the fingerprint of the dense encoder whose vectors of texts come of the same
    forward, None where none do.
    """

    def __init__(self, found: Based, opened: Opened) -> None:
        weights = found.weights
        self._body, self._head, self._layouts = opened.body, opened.head, opened.layouts
        self._pool, self._gate = opened.pool, opened.gate
        backend, self._pad = opened.tokenizer.backend_tokenizer, opened.tokenizer.pad_token_id or 0
        self._whole = copied(backend)
        self._cut = {kind: copied(backend, layout.most) for kind, layout in opened.layouts.items()}
        ids = self._whole.encode("a few words").ids or [self._pad]
        self._states = traced(weights.name, opened.body, _states, ids)
        self.name = weights.name
        self.fingerprint = _fingerprint(weights, opened)
        self.pooled = None if opened.pool is None else found.base.fingerprint
        self.dim = opened.dim
        self.max_tokens = opened.layouts["document"].most
        self.dtype = str(opened.body.dtype).removeprefix("torch.")

    @classmethod
    def load(
        cls,
        name: str = DEFAULT_LATE,
        *,
        device: str = "cpu",
        dtype: DType = "auto",
        cache: Path | None = None,
    ) -> Self:
        """Load the encoder called `name` (see `models.load`); raises WeightsMissing or ValueError.

        `dtype` "auto" is bfloat16 where the device computes in it natively, else float32. With a `cache`
        directory weights in bfloat16 are converted once and then mapped, instead of at every start.
        """
        found = find(name)
        path, kind = found.prepared(device, dtype, cache)
        return cls(found, open_folder(found, path, device, kind))

    def tokenize(self, texts: Sequence[str], kind: Kind = "document") -> list[list[int]]:
        """Tokens per text as the net reads them, cut to its length; never empty.

        `models.late_layout` says how a number tells that a token gets no vector, or is not looked at.
        """
        return [laid for _, laid in self._laid(texts, kind)]

    def forward(self, tokens: Sequence[Sequence[int]]) -> NDArray[np.object_]:
        """One padded batch through the net: object [texts] of float32 [rows, dim], in the given order.

        A text has a row for each token that gets a vector, at least one, of unit length.
        """
        found = np.empty(len(tokens), np.object_)
        for number, vectors in enumerate(self.vectors(tokens)):
            found[number] = vectors.tokens
        return found

    def vectors(self, tokens: Sequence[Sequence[int]], sentences: bool = False) -> list[Vectors]:
        """The same batch, with one vector of each text beside those of its tokens where that is asked.

        That is what `models.dense` gives for the text. ValueError if none is `pooled`.
        """
        ids, seen, counted = batched(tokens, self._pad)
        with torch.inference_mode():
            device = self._body.device
            read, looked, kept = (torch.from_numpy(each).to(device) for each in (ids, seen, counted))
            states = self._states(read, looked.long())
            rows: NDArray[np.float32] = self._head(states[kept]).cpu().numpy()
            pooled = self._pooled(states, looked) if sentences else [None] * len(tokens)
        ends = np.cumsum([0, *counted.sum(1)])
        return [
            Vectors(rows[begin:end], sentence)
            for (begin, end), sentence in zip(pairwise(ends), pooled, strict=True)
        ]

    def encode(
        self,
        texts: Sequence[str],
        kind: Kind = "document",
        budget: int = BUDGET,
        progress: Callable[[int], None] | None = None,
    ) -> list[NDArray[np.float32]]:
        """Tokenise, batch by padded tokens, forward: float32 [rows, dim] a text, in the order of `texts`.

        `progress` is called after each forward with the number of texts it encoded.
        """
        tokens = self.tokenize(texts, kind)
        found = np.empty(len(texts), np.object_)
        for batch in pack([len(ids) for ids in tokens], budget):
            found[batch] = self.forward([tokens[position] for position in batch])
            if progress is not None:
                progress(len(batch))
        return list(found)

    def gates(self, vectors: NDArray[np.float32]) -> NDArray[np.float32] | None:
        """By what an index multiplies vectors float32 [rows, dim] that it would keep: float32 [rows].

        Those of 0 are not kept. None for an encoder that has no such numbers.
        """
        if self._gate is None:
            return None
        with torch.inference_mode():
            found: NDArray[np.float32] = self._gate(torch.from_numpy(vectors)).numpy()
        return found

    def offsets(self, texts: Sequence[str]) -> list[NDArray[np.int64]]:
        """Character (start, end) of every word piece of each whole text: int64 [pieces, 2], nothing cut."""
        return spans(self._whole, texts)

    def room(self, kind: Kind = "document") -> int:
        """How many of a text's own pieces are read, special tokens, markers and prompts not counted."""
        layout, bare = self._layouts[kind], self._whole.encode("a", add_special_tokens=False)
        return layout.most - len(self._whole.encode(layout.before + "a")) + len(bare)

    def pieces(self, texts: Sequence[str], kind: Kind = "document") -> list[Pieces]:
        """What the rows of each text stand for that `forward` gives of its tokens."""
        layout = self._layouts[kind]
        return [layout.pieces(encoding, laid) for encoding, laid in self._laid(texts, kind)]

    def sample_texts(self) -> list[str]:
        """Texts that say every whole word of the vocabulary once, some dozens each, always the same.

        What a codebook of this encoder's vectors is made from: it then depends on nothing else.
        """
        vocabulary = [word.strip() for word in self.words(range(self._whole.get_vocab_size()))]
        words = [word for word in vocabulary if word.isalpha()]
        return [" ".join(words[at : at + SAMPLED]) for at in range(0, len(words), SAMPLED)]

    def words(self, ids: Iterable[int] | NDArray[np.integer]) -> list[str]:
        """Tokens as a reader would write them ("##s" for a piece that continues a word)."""
        return [self._whole.decode([int(each)], skip_special_tokens=False) for each in ids]

    def _pooled(self, states: torch.Tensor, looked: torch.Tensor) -> list[NDArray[np.float32]]:
        if self._pool is None:
            raise ValueError(f"{self.name} makes no vectors of whole texts")
        return list(self._pool(states, looked.long()).float().cpu().numpy())

    def _laid(self, texts: Sequence[str], kind: Kind) -> list[tuple[Encoding, list[int]]]:
        """Each text as the tokeniser cuts it up, and its signed tokens."""
        layout = self._layouts[kind]
        encodings = self._cut[kind].encode_batch([layout.before + text for text in texts])
        cut = sum(bool(encoding.overflowing) for encoding in encodings) if kind == "query" else 0
        if cut:
            log.info("%s cuts %d of %d questions to %d tokens", self.name, cut, len(texts), layout.most)
        return [(encoding, layout.lay(encoding, self._pad)) for encoding in encodings]


def _states(body: Any, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    states: torch.Tensor = body(input_ids=ids, attention_mask=mask).last_hidden_state
    return states


def _fingerprint(weights: Weights, opened: Opened) -> str:
    """Sha256 over the fingerprint of the weights and all that is done to texts, 16 hex digits."""
    laid = {kind: layout.described() for kind, layout in opened.layouts.items()}
    return sha256(json.dumps([weights.fingerprint, opened.dim, laid]).encode()).hexdigest()[:16]
