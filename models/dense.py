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
from sentence_transformers.base.modules import Normalize
from sentence_transformers.sentence_transformer.modules import Pooling, Transformer
from tokenizers import Encoding
from torch import Tensor
from transformers.utils import logging as transformers_logging

from models import Kind
from models.chunks import Document, Spans, Text
from models.load import DEFAULT_DENSE, Weights, resolve
from models.packing import pack
from models.precision import DType, prepared
from models.tokens import copied, decoded, padded, spans
from models.traced import traced

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
        ids = self._cut.encode("a few words").ids or [self._pad]
        self._vectors = traced(weights.name, torch.nn.ModuleList(net), _unit_vectors, ids)
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
        with torch.inference_mode():
            batch = self._batch(tokens)
            vectors = self._vectors(batch["input_ids"], batch["attention_mask"])
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

    def encode_chunks(
        self,
        texts: Sequence[str],
        chunks: Sequence[Spans],
        budget: int = BUDGET,
        progress: Callable[[int], None] | None = None,
    ) -> list[NDArray[np.float32]]:
        """Late chunking (see `models.chunks`): float32 [chunks, dim] a text, of unit length.

        `texts` are whole documents, and `chunks` the spans of characters in each whose vectors are wanted; a
        token is of each span that it begins in. `progress` is called after each forward with the number of
        chunks that are complete by it. Raises ValueError unless `supports_late_chunking`.
        """
        if not self.supports_late_chunking:
            raise ValueError(
                f"{self.name} does not take the mean of its token states, so chunks have no share in them: "
                "late chunking is not for it"
            )
        documents = [
            Document(text, wanted, self.max_tokens, self.dim)
            for text, wanted in zip(self._texts(texts), chunks, strict=True)
        ]
        windows = [(document, window) for document in documents for window in document.windows]
        tokens = [document.tokens(window) for document, window in windows]
        for batch in pack([len(ids) for ids in tokens], budget):
            states = self._states([tokens[position] for position in batch])
            done = sum(
                windows[position][0].add(windows[position][1], rows[: len(tokens[position])])
                for position, rows in zip(batch, states, strict=True)
            )
            if progress is not None:
                progress(done)
        return [document.vectors() for document in documents]

    @property
    def supports_late_chunking(self) -> bool:
        """Whether vectors are means of token states and nothing more, so that chunks can have theirs."""
        _, *rest = self._net
        pooled = [isinstance(module, Pooling) and module.pooling_mode == "mean" for module in rest]
        plain = [isinstance(module, Normalize) for module in rest]
        return pooled.count(True) == 1 and pooled.count(True) + plain.count(True) == len(rest)

    @property
    def pooling(self) -> str:
        """How token states become a vector, in sentence-transformers' words; "none" where a net has no such
        step.
        """
        modes = [module.pooling_mode for module in self._net if isinstance(module, Pooling)]
        return "+".join([modes[0]] if isinstance(modes[0], str) else modes[0]) if modes else "none"

    @property
    def normalizes(self) -> bool:
        """Whether the net itself ends in unit length, so that `forward` leaves its vectors as they are."""
        *_, last = self._net
        return isinstance(last, Normalize)

    def offsets(self, texts: Sequence[str]) -> list[NDArray[np.int64]]:
        """Character (start, end) of every word piece of each whole text: int64 [pieces, 2], nothing cut."""
        return spans(self._whole, texts)

    def text(self, ids: Sequence[int]) -> str:
        """What these entries of the vocabulary say, special ones left out. ValueError for an unknown one."""
        return decoded(self._whole, ids, self.name)

    def _batch(self, tokens: Sequence[Sequence[int]]) -> dict[str, Tensor]:
        ids, real = padded(tokens, self._pad)
        batch = {"input_ids": ids, "attention_mask": real.astype(np.int64)}
        return {name: torch.from_numpy(each).to(self._net.device) for name, each in batch.items()}

    def _states(self, tokens: Sequence[Sequence[int]]) -> NDArray[np.float32]:
        """Token states of one padded batch: float32 [texts, longest, dim]."""
        with torch.inference_mode():
            output = self._net[0](self._batch(tokens))
            states: NDArray[np.float32] = output["token_embeddings"].float().cpu().numpy()
        return states

    def _texts(self, texts: Sequence[str]) -> list[Text]:
        """The tokens of whole documents, with those of prompt and special tokens apart."""
        prompt = self._prompts["document"]
        encodings = self._whole.encode_batch([prompt + text for text in texts])
        added = self._whole.encode("a").special_tokens_mask
        ends = added.index(0), added[::-1].index(0)
        return [_text(encoding, *ends, len(prompt), self._pad) for encoding in encodings]


def _text(encoding: Encoding, first: int, last: int, shift: int, pad: int) -> Text:
    """The tokens of a document, of which `first` and `last` are special, `shift` characters into its text."""
    if not encoding.ids:
        return Text([pad], [], [], np.empty(0, np.int64))
    ids, offsets = encoding.ids, encoding.offsets
    behind = len(ids) - last
    while first < behind and offsets[first][1] <= shift:
        first += 1
    starts = np.array([begin for begin, _ in offsets[first:behind]], np.int64)
    return Text(ids[:first], ids[first:behind], ids[behind:], np.maximum(starts - shift, 0))


def _unit_vectors(net: torch.nn.ModuleList, ids: Tensor, mask: Tensor) -> Tensor:
    features = {"input_ids": ids, "attention_mask": mask}
    for module in net:
        features = module(features)
    return torch.nn.functional.normalize(features["sentence_embedding"].float(), dim=-1)


def _prompt(net: SentenceTransformer, names: Sequence[str]) -> str:
    """The first of these prompts that the model's own configuration fills; "" for the many that have none."""
    return next((prompt for name in names if (prompt := net.prompts.get(name))), "")


def _check(name: str, net: SentenceTransformer) -> None:
    if not isinstance(net[0], Transformer):
        raise ValueError(f"{name} starts with {type(net[0]).__name__}, not with a transformer")
    if any(isinstance(module, Pooling) and not module.include_prompt for module in net):
        raise ValueError(f"{name} leaves its prompt out of the pooling, which is not supported")
