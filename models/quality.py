"""How good a passage is whatever is asked: scores by which the worst can be left out of an index.

Static pruning (Chang et al., SIGIR 2024): passages that answer no question cost time at every one. "itn",
the information-to-noise ratio, needs no net and is their weakest baseline; any folder with a classifier of
two classes is a net for it, trained like a reranker but without the question. Its scores are log
probabilities, never above zero, so a threshold suits one scorer only: `keep` takes a share instead. Where
every record must be findable nothing should be pruned.
"""

import math
import re
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from models.load import Weights, resolve
from models.packing import pack
from models.precision import pretrained
from models.tokens import copied, padded

ITN = "itn"
BUDGET = 2048
"""Padded tokens per forward."""

POSITIVE = ("true", "relevant", "positive", "yes", "label_1")
"""What the class of good passages is called; "label_1" is what a classifier has that names none."""

WORD = re.compile(r"\w+")


class Quality(Protocol):
    """Scores passages; higher is better, and scores of one scorer can be compared."""

    name: str
    fingerprint: str

    def scores(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """The quality of each text, float32 [texts], in the order of `texts`."""
        ...


def load_quality(name: str, *, device: str = "cpu") -> Quality:
    """Load the scorer called `name`: "itn", or a classifier (see `models.load`).

    Raises WeightsMissing or ValueError. A classifier computes in float32: its scores decide what can be
    found, so they should not depend on the texts beside them.
    """
    if name == ITN:
        return InformationToNoise()
    weights = resolve(name)
    net = pretrained(AutoModelForSequenceClassification, weights.path, device, torch.float32, pooler=True)
    return Classifier(weights, net, AutoTokenizer.from_pretrained(weights.path, local_files_only=True))


def keep(scores: NDArray[np.float32], share: float, ids: Sequence[str] | NDArray[Any]) -> NDArray[np.bool_]:
    """Which passages stay when the worst `share` of them (0 to 1) goes: bool, `n - floor(share * n)` of them.

    Of equally good passages those with smaller ids stay.
    """
    if not 0 <= share <= 1:
        raise ValueError(f"a share of passages lies between 0 and 1, not {share}")
    by_id = np.empty(len(scores), np.int64)
    by_id[np.argsort(np.asarray(ids), kind="stable")] = np.arange(len(scores))
    worst = np.lexsort((-by_id, scores))[: math.floor(share * len(scores))]
    kept = np.ones(len(scores), np.bool_)
    kept[worst] = False
    return kept


class InformationToNoise:
    """Distinct words divided by words, 0 for a text without any: text that repeats itself says little."""

    name = ITN
    fingerprint = ITN

    def scores(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """See `Quality`; between 0 and 1."""
        words = [WORD.findall(text.lower()) for text in texts]
        return np.array([len(set(each)) / max(1, len(each)) for each in words], np.float32)


class Classifier:
    """The log probability of the class of good passages, never above zero."""

    def __init__(self, weights: Weights, net: Any, tokenizer: Any) -> None:
        self._net = net
        self._positive = _positive(weights.name, net.config.id2label)
        most = min(tokenizer.model_max_length, net.config.max_position_embeddings)
        self._cut = copied(tokenizer.backend_tokenizer, int(most))
        self._pad: int = tokenizer.pad_token_id or 0
        self.name = weights.name
        self.fingerprint = weights.fingerprint

    def scores(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """See `Quality`."""
        tokens = [each.ids or [self._pad] for each in self._cut.encode_batch_fast(list(texts))]
        found = np.empty(len(texts), np.float32)
        for batch in pack([len(ids) for ids in tokens], BUDGET):
            found[batch] = self._forward([tokens[position] for position in batch])
        return found

    def _forward(self, tokens: Sequence[Sequence[int]]) -> NDArray[np.float32]:
        ids, real = (torch.from_numpy(each).to(self._net.device) for each in padded(tokens, self._pad))
        with torch.inference_mode():
            logits = self._net(input_ids=ids, attention_mask=real.long()).logits
            scores: NDArray[np.float32] = logits.log_softmax(-1)[:, self._positive].cpu().numpy()
        return scores


def _positive(name: str, labels: dict[int, str]) -> int:
    """The number of the class of good passages; raises ValueError unless exactly one is called so."""
    found = [number for number, label in labels.items() if label.lower() in POSITIVE]
    if len(labels) < 2 or len(found) != 1:
        raise ValueError(
            f"{name} tells classes {', '.join(labels.values())} apart; to score passages exactly one of at "
            f"least two must be called {' or '.join(POSITIVE)}"
        )
    return found[0]
