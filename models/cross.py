"""Pairs of a question and a text to scores: a cross-encoder, by any sentence-transformers `CrossEncoder`.

Both texts pass through one net together (Nogueira and Cho 2019, arXiv 1901.04085), so nothing of a document
can be computed before the question is known, and a pair costs as much as a passage costs an encoder. What a
long document costs is bounded: the net reads a few of its windows, which a much cheaper model chooses (see
`models.cross_passages` and `models.cross_student`).
"""

from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Self

import numpy as np
import torch
from tokenizers import Encoding
from torch import Tensor

from models.based import Based
from models.cross_folder import Opened, find, open_folder
from models.cross_keep import THRESHOLD, Kept, Rule, judge, located
from models.cross_passages import Ints, Item, Reading, Scores, Windows, add_up, choose, cut
from models.cross_recipe import Recipe, read_recipe
from models.cross_student import Student, load_student
from models.packing import pack
from models.precision import DType
from models.sentences import sentences
from models.tokens import copied, padded, spans

BUDGET = 2048
"""Padded tokens per forward: enough to fill the cores, little enough to stay in their caches."""

MOST_TITLE_TOKENS = 64
"""A title is cut to so many, and to a third of what the net reads, as it is for encoders."""


class CrossEncoder:
    """A cross-encoder on one device; its methods may be called from any thread.

    `fingerprint` covers weights, adapter, head, tokeniser, activation, recipe and student; `dtype` is a
    choice of the machine and not part of it. `recipe` says how long documents are read.
    """

    def __init__(self, found: Based, opened: Opened, recipe: Recipe, student: Student) -> None:
        weights = found.weights
        self._net, self._student, tokenizer = opened.net, student, opened.tokenizer
        self._activation = opened.activation
        self._pad: int = tokenizer.pad_token_id or 0
        self._typed = opened.typed
        self._whole = copied(tokenizer.backend_tokenizer)
        self._cut = copied(tokenizer.backend_tokenizer)
        self._cut.enable_truncation(opened.max_tokens, direction=tokenizer.truncation_side)
        self.name = weights.name
        self.fingerprint = weights.fingerprint
        self.max_tokens = opened.max_tokens
        self.dtype = str(opened.net.dtype).removeprefix("torch.")
        self.recipe = recipe

    @classmethod
    def load(
        cls, name: str, *, device: str = "cpu", dtype: DType = "auto", cache: Path | None = None
    ) -> Self:
        """Load the cross-encoder called `name` (see `models.load`); raises WeightsMissing or ValueError.

        `dtype` "auto" is bfloat16 where the device computes in it natively, else float32; the last layer is
        always in float32. With a `cache` directory weights in bfloat16 are converted once and then mapped,
        instead of at every start.
        """
        found = find(name)
        path, kind = found.prepared(device, dtype, cache)
        opened = open_folder(found, path, device, kind)
        recipe = read_recipe(found.weights.path, opened.max_tokens)
        student = load_student(found.weights.path, opened.net.get_input_embeddings().weight)
        return cls(found, opened, recipe, student)

    def tokenize(self, pairs: Sequence[tuple[str, str]]) -> list[Item]:
        """The items of pairs, special tokens included; never empty.

        A pair that is longer than `max_tokens` loses tokens at the end of whichever text has more, as in
        sentence-transformers.
        """
        return [self._item(each) for each in self._cut.encode_batch_fast(list(pairs))]

    def forward(self, items: Sequence[Item]) -> Scores:
        """One padded batch through the net: its logits, float32 [n], in the given order."""
        with torch.inference_mode():
            logits: Scores = self._net(**self.inputs(items)).logits[:, 0].cpu().numpy()
        return logits

    def inputs(self, items: Sequence[Item]) -> dict[str, Tensor]:
        """One padded batch by the names of the net's arguments: int64 [n, longest] each."""
        signed, real = padded(items, self._pad)
        second = signed < 0
        inputs = {"input_ids": np.where(second, ~signed, signed), "attention_mask": real.astype(np.int64)}
        if self._typed:
            inputs["token_type_ids"] = second.astype(np.int64)
        return {name: torch.from_numpy(each).to(self._net.device) for name, each in inputs.items()}

    def predict(self, pairs: Sequence[tuple[str, str]], budget: int = BUDGET) -> Scores:
        """Tokenise, batch by padded tokens, forward: the raw logits, float32 [n], in the order of `pairs`."""
        items = self.tokenize(pairs)
        logits = np.empty(len(items), np.float32)
        for batch in pack([len(item) for item in items], budget):
            logits[batch] = self.forward([items[place] for place in batch])
        return logits

    def activate(self, logits: Scores) -> Scores:
        """What the model's own activation makes of logits, float32 of their shape: a sigmoid or nothing."""
        if self._activation == "identity":
            return logits
        scores: Scores = torch.from_numpy(logits).sigmoid().numpy()
        return scores

    def offsets(self, texts: Sequence[str]) -> list[Ints]:
        """Character (start, end) of every word piece of each whole text: int64 [pieces, 2], nothing cut."""
        return spans(self._whole, texts)

    def read(self, query: str, documents: Sequence[tuple[str, str]]) -> list[Reading]:
        """What to read of documents, which are titles and texts: as many windows as the recipe says, at most.

        A text that fits a window is read whole; each window is read below the title.
        """
        if not documents:
            return []
        asked = self._pieces([query])[0].ids
        titles = self._titles([title for title, _ in documents])
        texts = [text for _, text in documents]
        chosen = [
            self._choose(asked, text, pieces) for text, pieces in zip(texts, self._pieces(texts), strict=True)
        ]
        encodings = self._cut.encode_batch_fast(
            [
                (query, f"{title} {text[begin:end]}" if title else text[begin:end])
                for title, text, (windows, _) in zip(titles, texts, chosen, strict=True)
                for begin, end in windows.characters.tolist()
            ]
        )
        ends = np.cumsum([len(windows) for windows, _ in chosen]).tolist()
        return [
            self._reading(windows, number, encodings[end - len(windows) : end])
            for (windows, number), end in zip(chosen, ends, strict=True)
        ]

    def score(self, readings: Sequence[Reading], logits: Scores) -> Scores:
        """The scores of documents, float32 [documents], from the logits of all their items in order."""
        counts = [len(each.items) for each in readings]
        return add_up(logits, np.repeat(np.arange(len(counts)), counts), len(counts), self.recipe.weights)

    @property
    def keeps(self) -> bool:
        """Whether it says which sentences to keep."""
        return getattr(self._net, "keep", None) is not None

    def keep(
        self,
        query: str,
        documents: Sequence[tuple[str, str]],
        threshold: float = THRESHOLD,
        rule: Rule = "mean",
        budget: int = BUDGET,
    ) -> list[Kept]:
        """Which sentences of documents, which are titles and texts, help to answer (see `models.cross_keep`).

        All of a text is read, in windows below its title; a token that two of them share counts in both. Of a
        pair that is longer than `max_tokens` the end is not read. ValueError unless it `keeps`.
        """
        if not self.keeps:
            raise ValueError(f"{self.name} has no head that says which sentences to keep")
        parts = self._parts(documents)
        pairs = [
            (query, title + text[begin:end]) for title, text, spans in parts for begin, end in spans.tolist()
        ]
        encodings = self._cut.encode_batch(pairs)
        read = zip(encodings, self._keeping([self._item(each) for each in encodings], budget), strict=True)
        return [
            judge(sentences(text), *located(islice(read, len(spans)), len(title), spans), threshold, rule)
            for title, text, spans in parts
        ]

    def _parts(self, documents: Sequence[tuple[str, str]]) -> list[tuple[str, str, Ints]]:
        """Of each document what is put before its windows, its text, and where in it all its windows are."""
        titles = [f"{title} " if title else "" for title in self._titles([title for title, _ in documents])]
        texts, recipe = [text for _, text in documents], self.recipe
        return [
            (title, text, cut(text, offsets, recipe.window, recipe.overlap).characters)
            for title, text, offsets in zip(titles, texts, self.offsets(texts), strict=True)
        ]

    def _keeping(self, items: Sequence[Item], budget: int) -> list[Scores]:
        """Of each item the probability that each of its tokens is to be kept, float32 [tokens]."""
        found: list[Scores] = [np.empty(0, np.float32)] * len(items)
        for batch in pack([len(item) for item in items], budget):
            with torch.inference_mode():
                logits = self._net(**self.inputs([items[place] for place in batch])).keep
            for place, row in zip(batch, logits.softmax(-1)[:, :, 1].cpu().numpy(), strict=True):
                found[place] = row[: len(items[place])]
        return found

    def _choose(self, asked: Sequence[int], text: str, pieces: Encoding) -> tuple[Windows, int]:
        """The windows of a text that are read, and how many it has."""
        recipe = self.recipe
        offsets = np.array(pieces.offsets, np.int64).reshape(-1, 2)
        windows = cut(text, offsets, recipe.window, recipe.overlap)
        if len(windows) <= recipe.passages:
            return windows, len(windows)
        estimates = self._student.estimates(asked, pieces.ids, windows.tokens)
        return windows.take(choose(estimates, recipe.passages)), len(windows)

    def _reading(self, windows: Windows, number: int, encodings: Sequence[Encoding]) -> Reading:
        whole = len(windows) == number and not any(each.overflowing for each in encodings)
        return Reading([self._item(each) for each in encodings], windows.characters, whole)

    def _titles(self, titles: Sequence[str]) -> list[str]:
        """Titles, cut."""
        most = min(MOST_TITLE_TOKENS, self.max_tokens // 3)
        offsets = [each.offsets for each in self._pieces(titles)]
        return [
            title if len(each) <= most else title[: each[most - 1][1]]
            for title, each in zip(titles, offsets, strict=True)
        ]

    def _pieces(self, texts: Sequence[str]) -> list[Encoding]:
        return self._whole.encode_batch(list(texts), add_special_tokens=False)

    def _item(self, encoding: Encoding) -> Item:
        kinds = zip(encoding.ids, encoding.type_ids, strict=True)
        return [~number if kind else number for number, kind in kinds] or [self._pad]
