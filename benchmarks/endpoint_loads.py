"""What the model endpoints are asked with: real texts of given sizes, from a BEIR folder."""

import json
from collections.abc import Sequence
from functools import cache
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from tokenizers import Tokenizer

from benchmarks.raw_encode import By, DType, Job
from indexer.sources import read_documents, read_queries
from models import Kind
from models.load import DEFAULT_DENSE, folder

WORDS = 100
TOGETHER = 16
RERANKED = 100
BODIES = 32
"""Different requests of many texts; they are sent by turns."""

MODEL = "default"

LONGEST = 256
"""Tokens that the net reads. What is longer is left out: Infinity cuts it, OpenAI's wire refuses it."""


class Load(NamedTuple):
    """Requests of so many texts each, sent by so many clients."""

    label: str
    bodies: list[str]
    texts: int
    clients: int
    path: str = "/v1/embeddings"


class Texts:
    """What is sent and encoded, all from one folder."""

    def __init__(self, data: Path) -> None:
        self.queries = queries(data)
        self.passages = groups(passages(data, BODIES * RERANKED, WORDS), RERANKED)
        self.few = groups([text for group in self.passages for text in group][: BODIES * TOGETHER], TOGETHER)

    def embedding(self) -> list[Load]:
        """Single queries and passages in 16s."""
        single = [json.dumps({"model": MODEL, "input": query}) for query in self.queries]
        several = [json.dumps({"model": MODEL, "input": group}) for group in self.few]
        singles = [Load(f"queries, {n} client{'s' * (n > 1)}", single, 1, n) for n in (1, 8, 32)]
        return [*singles, Load(f"passages in {TOGETHER}s, 8 clients", several, TOGETHER, 8)]

    def reranking(self) -> list[Load]:
        """A query and 100 passages."""
        bodies = [
            json.dumps({"model": "late", "query": query, "documents": group})
            for query, group in zip(self.queries, self.passages, strict=False)
        ]
        return [Load(f"rerank, {n} client{'s' * (n > 1)}", bodies, RERANKED, n) for n in (1, 4)]

    def raw(self, by: By, what: str, dtype: DType, seconds: float) -> Job:
        """The same texts for a net alone; `what` is `queries`, `passages` or `rerank`."""
        together = [text for group in self.few for text in group]
        given = {"queries": [self.queries], "passages": [together], "rerank": self.passages}[what]
        kind: Kind = "query" if what == "queries" else "document"
        asked = self.queries if what == "rerank" else ()
        return Job(by, str(folder(DEFAULT_DENSE)), dtype, kind, given, seconds, asked)


def queries(data: Path) -> list[str]:
    """Its queries, in file order."""
    return list(read_queries(data).values())


def passages(data: Path, number: int, words: int) -> list[str]:
    """Stretches of so many words, as many as are wanted, document after document.

    Raises ValueError if there are not so many of at most LONGEST tokens.
    """
    stretches = (
        " ".join(each) for document in read_documents(data) for each in groups(document.text.split(), words)
    )
    found = list(islice((text for text in stretches if token_counts([text])[0] <= LONGEST), number))
    if len(found) < number:
        raise ValueError(f"{data} has {len(found)} stretches of {words} words, and {number} are wanted")
    return found


def token_counts(texts: Sequence[str]) -> list[int]:
    """Tokens of each text for the net, special ones included."""
    return [len(encoding.ids) for encoding in _tokenizer().encode_batch_fast(list(texts))]


@cache
def _tokenizer() -> Tokenizer:
    tokenizer = Tokenizer.from_file(str(folder(DEFAULT_DENSE) / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def groups(texts: Sequence[str], size: int) -> list[list[str]]:
    """Texts in groups of a size; a rest that fills none is left out."""
    return [list(texts[begin : begin + size]) for begin in range(0, len(texts) - size + 1, size)]
