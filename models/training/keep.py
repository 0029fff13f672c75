"""Which sentences of a passage a net should learn to keep, and how wrong it is about them.

Provence (Chirkova et al., ICLR 2025, arXiv 2501.16214) has a language model cite sentences. Here token
vectors cite: a late-interaction encoder says how well each sentence answers for the question's tokens, and
the best of a relevant passage are kept. In a passage that is not relevant nothing is.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer
from torch import Tensor
from torch.nn.functional import cross_entropy

from models.cross_keep import judge
from models.cross_passages import Ints
from models.late import LateEncoder
from models.sentences import Span, sentences
from models.training.groups import Group

Floats = NDArray[np.float32]
Bools = NDArray[np.bool_]

UNTOLD = -100
"""The label of a token that nothing is known of; `torch` leaves it out."""

MARGIN = 0.3
"""How far below the best a sentence may be and still be kept, as a share of the way to the worst."""

STRONG = 0.5
"""The threshold at which a net is measured."""


class Told(NamedTuple):
    """The sentences of a text: characters (begin, end) of each, in order, and bool [n], which to keep."""

    spans: list[Span]
    kept: Bools


Citing = Callable[[str, str], Told]
"""Of a question and a relevant text: which of its sentences answer."""


def sentence_labels(query: Floats, found: Sequence[Floats], margin: float = MARGIN) -> Bools:
    """Which sentences of a relevant text to keep, bool [sentences]: the best, and what is nearly as good.

    `query` float32 [q, d] and each of `found` float32 [t, d] are unit vectors: of tokens, or one of a whole
    text. A sentence is worth the mean over the question's vectors of the best cosine among its own; kept is
    what is worth at least `best - margin * (best - worst)`. One without vectors is not kept.
    """
    read = [place for place, each in enumerate(found) if len(each)]
    kept = np.zeros(len(found), np.bool_)
    if read:
        worth = np.array([(query @ found[place].T).max(1).mean() for place in read])
        kept[read] = worth >= worth.max() - margin * (worth.max() - worth.min())
    return kept


def citing(encoder: LateEncoder, margin: float = MARGIN) -> Citing:
    """Cite by the token vectors of a late-interaction encoder, which know the text around their sentence."""

    @cache
    def cite(query: str, text: str) -> Told:
        spans = sentences(text)
        (asked,) = encoder.encode([query], "query")
        (rows,) = encoder.encode([text])
        (pieces,) = encoder.pieces([text])
        begins, ends = pieces.spans.T
        found = [rows[(begins < ends) & (begins >= begin) & (begins < end)] for begin, end in spans]
        return Told(spans, sentence_labels(asked, found, margin))

    return cite


def nothing(text: str) -> Told:
    """What is kept of a text that does not answer."""
    spans = sentences(text)
    return Told(spans, np.zeros(len(spans), np.bool_))


class Pair(NamedTuple):
    """What is known of the tokens of a pair as a cross-encoder reads it.

    `places` int64 [n] are those in its text: neither the question's nor a title's; `begins` int64 [n] is
    where each begins in the text; `told` are the text's sentences.
    """

    places: Ints
    begins: Ints
    told: Told

    def labels(self) -> Tensor:
        """1 for a token to keep, 0 for one to drop, UNTOLD for one between sentences: int64 [n]."""
        found = np.full(len(self.begins), UNTOLD, np.int64)
        for (begin, end), kept in zip(self.told.spans, self.told.kept.tolist(), strict=True):
            found[(self.begins >= begin) & (self.begins < end)] = kept
        return torch.from_numpy(found)


class Keeping:
    """Says what to keep of a group's documents. `cut` is the tokeniser of pairs, which are cut by it."""

    def __init__(self, cut: Tokenizer, cite: Citing) -> None:
        self._cut, self._cite = cut, cite

    def pairs(self, group: Group) -> list[Pair]:
        """Of each document of a group that has a relevant one, in order."""
        encodings = self._cut.encode_batch([(group.query, text) for text in group.texts])
        found = []
        for encoding, (title, text), relevant in zip(encodings, group.documents, group.relevant, strict=True):
            second = np.array([each == 1 for each in encoding.sequence_ids], np.bool_)
            begins = np.array(encoding.offsets, np.int64)[:, 0] - (len(title) + 1 if title else 0)
            (places,) = (second & (begins >= 0)).nonzero()
            told = self._cite(group.query, text) if relevant else nothing(text)
            found.append(Pair(places.astype(np.int64), begins[places], told))
        return found


def keep_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean cross-entropy of tokens: logits float [tokens, 2] of dropping and keeping, labels int64 [tokens].

    A scalar; 0 where nothing is told.
    """
    if not bool((labels != UNTOLD).any()):
        return logits.sum() * 0.0
    return cross_entropy(logits, labels, ignore_index=UNTOLD)


@dataclass
class Agreement:
    """How the sentences that a net keeps agree with those it should keep: counts over texts."""

    right: int = 0
    kept: int = 0
    wanted: int = 0
    dropped: int = 0
    useless: int = 0

    def add(self, pair: Pair, probabilities: Floats, relevant: bool) -> None:
        """Count the sentences of a text, by p float32 [n] of the pair's tokens that are judged."""
        kept = judge(pair.told.spans, pair.begins, probabilities, STRONG, "mean").kept
        if relevant:
            self.right += int((kept & pair.told.kept).sum())
            self.kept += int(kept.sum())
            self.wanted += int(pair.told.kept.sum())
        else:
            self.dropped += int((~kept).sum())
            self.useless += len(kept)

    def measures(self) -> dict[str, float]:
        """F1 of what is kept of relevant texts, and the share of other texts' sentences that is dropped."""
        return {
            "keep_f1": 2 * self.right / max(1, self.kept + self.wanted),
            "dropped": self.dropped / max(1, self.useless),
        }
