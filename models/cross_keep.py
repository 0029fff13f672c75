"""Which sentences of a document help to answer: a second head on the states that rank it.

Provence (Chirkova et al., ICLR 2025, arXiv 2501.16214): two logits z of each token of the document say
whether it is to be dropped or kept, p = softmax(z)[1]. Sentences are kept or dropped whole, so what is left
is a subsequence of the document, byte for byte, and where each part of it stood is known. Titles are read
and always kept.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from tokenizers import Encoding

from models.cross_passages import Ints
from models.sentences import Span

THRESHOLD = 0.1
"""Conservative; 0.5 is strong."""

Rule = Literal["mean", "majority"]
"""When a sentence is kept: where the mean of its tokens' p is above the threshold, as open re-implementations
have it, or where most of its tokens' p are, as in the paper. The two differ where few tokens are sure.
"""

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Kept:
    """The sentences of a text: `spans` int64 [n, 2] are the characters (begin, end) of each, in order.

    `scores` float32 [n] are means of its tokens' p, NaN where none was read; `kept` bool [n] says whether it
    is kept, as those are too.
    """

    spans: Ints
    scores: Floats
    kept: NDArray[np.bool_]

    def parts(self, text: str) -> list[str]:
        """The sentences of the text that are kept, as they stand there."""
        return [text[begin:end] for begin, end in self.spans[self.kept].tolist()]


def judge(
    sentences: Sequence[Span], begins: Ints, probabilities: Floats, threshold: float, rule: Rule
) -> Kept:
    """Which sentences of a text to keep, by the probabilities p, float32 [tokens], of the tokens in them.

    `begins` int64 [tokens] is where each token begins in the text, and so which sentence it belongs to.
    Raises ValueError for a threshold beyond 0 to 1.
    """
    if not 0 <= threshold <= 1:
        raise ValueError(f"a threshold of probabilities lies from 0 to 1, not at {threshold}")
    spans = np.array(sentences, np.int64).reshape(-1, 2)
    inside = (begins >= spans[:, :1]) & (begins < spans[:, 1:])
    read = inside.sum(1)
    means = np.full(len(spans), np.nan, np.float32)
    np.divide(inside @ probabilities, read, out=means, where=read > 0)
    most = 2 * (inside @ (probabilities > threshold).astype(np.int64)) > read
    return Kept(spans, means, (means > threshold if rule == "mean" else most) | (read == 0))


def located(read: Iterable[tuple[Encoding, Floats]], before: int, windows: Ints) -> tuple[Ints, Floats]:
    """The tokens of a document's windows: where each begins in it, int64 [tokens], and its p, float32.

    `read` are the encoding of each window's pair and the p of all its tokens, `windows` int64 [n, 2] the
    characters of each. In a pair a window stands behind `before` characters, a title, which are not judged.
    """
    begins, found = [np.empty(0, np.int64)], [np.empty(0, np.float32)]
    for (encoding, probabilities), (begin, _) in zip(read, windows.tolist(), strict=True):
        second = np.array([each == 1 for each in encoding.sequence_ids], np.bool_)
        places = np.array(encoding.offsets, np.int64).reshape(-1, 2)[:, 0] - before
        judged = second & (places >= 0)
        begins.append(places[judged] + begin)
        found.append(probabilities[judged])
    return np.concatenate(begins), np.concatenate(found)
