"""Texts to learned sparse vectors: a weight above zero for a few hundred entries of the net's own vocabulary.

SPLADE (Formal et al. 2021, arXiv 2109.10086): the head of a masked-language model says at every position
which words would fit there; the largest such logit of a word becomes its weight, so a passage about tides
has a weight for "ocean" too. Other nets weigh the text's own pieces only, or are causal models;
`models.sparse_folder` reads which it is from the folder. Special tokens have no vote and get no weight:
they would be long posting lists without meaning.

A net may have come with a table of weights for the pieces of questions, and then no net reads these (Geng et
al. 2024, arXiv 2411.04403; see `models.idf`).

What an index must know of an encoder is `vocabulary`, below 65,536 because entries are stored in 16 bits, and
`ceiling`, which no weight passes.
"""

from collections.abc import Callable, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray

from models import Kind
from models.csr import Csr, concatenate, from_dense, prune, unit
from models.idf import idf_query
from models.load import DEFAULT_SPARSE, Weights, resolve
from models.packing import pack
from models.precision import DType, prepared
from models.sparse_folder import Opened, open_folder
from models.sparse_layout import layout
from models.tokens import copied, decoded, padded, spans

BUDGET = 2048
"""Padded tokens per forward: enough to fill the cores, little enough to stay in their caches."""

WEIGHED = 1 << 30
"""Added to the numbers of a question's pieces whose weights are those of a table; above all vocabularies."""

LARGEST = 65_536
"""Most vocabulary entries that an index can number in 16 bits."""


class SparseEncoder:
    """A learned sparse encoder on one device; its methods may be called from any thread.

    `ids` numbers the pieces of its vocabulary; `idf` are weights of question pieces that came with the net,
    float32 [vocabulary], and make the vectors of all questions, or None. `fingerprint` covers weights,
    tokeniser, table and recipe; `dtype` is a choice of the machine and not part of it, since vectors of
    either can be compared.
    """

    def __init__(self, weights: Weights, opened: Opened) -> None:
        self._net, self._recipe, tokenizer = opened.net, opened.recipe, opened.tokenizer
        backend = tokenizer.backend_tokenizer
        kinds: tuple[Kind, ...] = ("document", "query")
        self._layouts = {kind: layout(backend, opened.recipe, kind, opened.max_tokens) for kind in kinds}
        self._whole = copied(backend)
        self._cut = copied(backend, max(each.room for each in self._layouts.values()))
        self._pad = ~(tokenizer.pad_token_id or 0)
        self.name = weights.name
        self.fingerprint = weights.fingerprint
        self.ids: Mapping[str, int] = self._whole.get_vocab()
        self.vocabulary = int(opened.net.body.config.vocab_size)
        special = {each for each in tokenizer.all_special_ids if each < self.vocabulary}
        self._special = np.array(sorted(special), np.int64)
        self._mute = special - {tokenizer.unk_token_id}  # an unknown word is none of ours, but has a context
        self.max_tokens = self._layouts["document"].room + len(self._layouts["document"].lay([]))
        self.ceiling = opened.recipe.highest
        self.dtype = str(opened.net.body.dtype).removeprefix("torch.")
        self.idf = opened.idf

    @classmethod
    def load(
        cls,
        name: str = DEFAULT_SPARSE,
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
        opened = open_folder(path, name, device, kind)
        if (size := opened.net.body.config.vocab_size) > LARGEST:
            raise ValueError(f"{name} has a vocabulary of {size} entries; an index numbers {LARGEST} at most")
        return cls(weights, opened)

    def tokenize(self, texts: Sequence[str], kind: Kind = "document") -> list[list[int]]:
        """Tokens per text as the net reads them, cut to its length; never empty.

        A token without a vote is the complement of its number (see `models.sparse_layout`); one that a table
        weighs is its number + `WEIGHED`.
        """
        if self.idf is not None and kind == "query":
            room = self._layouts[kind].room
            return [
                [each + WEIGHED for each in ids[:room]] or [~self._pad + WEIGHED]
                for ids in self._pieces(texts)
            ]
        lay = self._layouts[kind].lay
        return [lay(self._voters(ids)) or [self._pad] for ids in self._pieces(texts)]

    def forward(self, tokens: Sequence[Sequence[int]]) -> Csr:
        """One padded batch through the net: a row per text, in the given order.

        Questions that a table weighs may be among them, and cost no forward.
        """
        weighed = [place for place, ids in enumerate(tokens) if ids[0] >= WEIGHED]
        if not weighed:
            return self._read(tokens)
        left = [place for place, ids in enumerate(tokens) if ids[0] < WEIGHED]
        read = [self._read([tokens[place] for place in left])] if left else []
        made = concatenate([*(self._weigh(tokens[place]) for place in weighed), *read])
        return made.take(np.argsort([*weighed, *left]))

    def finish(self, vectors: Csr, kind: Kind) -> Csr:
        """What questions and passages do not share: how many terms they keep, and the length of questions."""
        most = self._recipe.terms(kind)
        kept = vectors if most is None else prune(vectors, most, 0.0)
        return unit(kept) if kind == "query" and self._recipe.kind == "prosper" else kept

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
        return spans(self._whole, texts)

    def text(self, ids: Sequence[int]) -> str:
        """What these entries of the vocabulary say, special ones left out. ValueError for an unknown one."""
        return decoded(self._whole, ids, self.name)

    def room(self, kind: Kind = "document") -> int:
        """How many of a text's own pieces are read, special tokens and prompts not counted."""
        return self._layouts[kind].room

    def pieces(self, texts: Sequence[str]) -> list[NDArray[np.int32]]:
        """Distinct pieces of each text, cut as passages are: int32, ascending, none special."""
        room = self._layouts["document"].room
        return [
            np.setdiff1d(np.array(ids[:room], np.int32), self._special).astype(np.int32)
            for ids in self._pieces(texts)
        ]

    def words(self, terms: Sequence[int] | NDArray[np.integer]) -> list[str]:
        """Vocabulary entries as a reader would write them ("##s" for a piece that continues a word)."""
        return [self._whole.decode([int(term)], skip_special_tokens=False) for term in terms]

    def _read(self, tokens: Sequence[Sequence[int]]) -> Csr:
        signed, real = padded(tokens, self._pad)
        voting = signed >= 0
        ids = np.where(voting, signed, ~signed)
        with torch.inference_mode():
            device = self._net.body.device
            weights = self._net(*(torch.from_numpy(each).to(device) for each in (ids, real, voting)))
            weights = weights.clamp(max=self.ceiling)
            weights[:, torch.from_numpy(self._special)] = 0.0
            weights[torch.from_numpy(~voting.any(1))] = 0.0
        return from_dense(weights.cpu().numpy())

    def _weigh(self, tokens: Sequence[int]) -> Csr:
        """A question by the table alone: one row."""
        assert self.idf is not None, "only then tokens are marked so"
        return idf_query(np.setdiff1d(np.array(tokens) - WEIGHED, self._special).astype(np.int32), self.idf)

    def _pieces(self, texts: Sequence[str]) -> list[list[int]]:
        return [each.ids for each in self._cut.encode_batch_fast(list(texts), add_special_tokens=False)]

    def _voters(self, ids: list[int]) -> list[int]:
        """The same tokens, of which special ones that were written out in the text have no vote."""
        return ids if self._mute.isdisjoint(ids) else [~each if each in self._mute else each for each in ids]
