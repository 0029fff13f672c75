"""The data sets of the sparse benchmark by name, each made once and kept in a directory.

`synthetic-N` and `ifree-N` are drawn (see `sparse_synthetic`), N one of 100k, 500k, 1m. `debian`,
`collections` and `real`, which is both, are encoded on both sides by the default sparse encoder; the same
names with `-idf` keep its passages and ask with the inverse document frequencies of the questions' pieces.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import Progress

from benchmarks.sparse_synthetic import VOCABULARY, synthesise
from benchmarks.sparse_texts import Texts, collections, debian, drawn
from benchmarks.sparse_vectors import Dataset, read
from models import Kind
from models.csr import Csr, concatenate
from models.idf import idf_query
from models.load import SPLADE
from models.sparse import SparseEncoder

QUESTIONS = 2000
SIZES = {"100k": 100_000, "500k": 500_000, "1m": 1_000_000}
KINDS = {"synthetic": "splade", "ifree": "ifree"}
DRAWN = {f"{name}-{size}": (kind, size) for name, kind in KINDS.items() for size in SIZES}
PARTS = ("debian", "collections")
IDF = "-idf"
ENCODED = (*PARTS, "real", *(f"{name}{IDF}" for name in (*PARTS, "real")))
NAMES = (*DRAWN, *ENCODED)


def load(name: str, cache: Path, judged: Path | None = None) -> Dataset:
    """The data set called `name`; `judged` is the folder of BEIR folders that `collections` reads.

    Raises MissingDataError where texts are not on this machine.
    """
    path = cache / f"{name}.npz"
    if not path.is_file():
        cache.mkdir(parents=True, exist_ok=True)
        make(name, cache, judged).save(path)
    return read(path)


def make(name: str, cache: Path, judged: Path | None) -> Dataset:
    """Draw it, or encode its texts (minutes on one core)."""
    if name in DRAWN:
        kind, size = DRAWN[name]
        return Dataset(name, *synthesise(kind, SIZES[size], QUESTIONS), VOCABULARY)
    if name == "real":
        return _joined(name, [load(part, cache, judged) for part in PARTS])
    encoder, texts = SparseEncoder.load(SPLADE), _texts(name.removesuffix(IDF), judged)
    if name.endswith(IDF):
        passages = load(name.removesuffix(IDF), cache, judged).passages
        questions = _weighed(encoder, texts)
    else:
        passages = _encode(encoder, texts.passages, "document")
        questions = _encode(encoder, texts.questions, "query")
    return Dataset(name, passages, _without_empty(questions), encoder.vocabulary)


def _joined(name: str, parts: Sequence[Dataset]) -> Dataset:
    """All passages, and as many questions of one part as of another, shuffled."""
    passages = concatenate([part.passages for part in parts])
    each = min(len(part.questions) for part in parts) // 2
    questions = concatenate([part.questions.take(np.arange(each)) for part in parts])
    order = np.random.default_rng(2).permutation(len(questions))
    return Dataset(name, passages, questions.take(order), parts[0].vocabulary)


def _texts(name: str, judged: Path | None) -> Texts:
    if name == "debian":
        return debian(QUESTIONS)
    if name == "collections":
        return collections(judged, QUESTIONS)
    parts = [_texts(part, judged) for part in PARTS]
    questions = [question for part in parts for question in part.questions[: QUESTIONS // 2]]
    return Texts([text for part in parts for text in part.passages], drawn(questions, QUESTIONS))


def _encode(encoder: SparseEncoder, texts: Sequence[str], kind: Kind) -> Csr:
    """Said as it goes: it takes minutes."""
    console = Console(stderr=True)
    with Progress(console=console) as progress:
        task = progress.add_task(f"encoding {len(texts):,} texts", total=len(texts))
        return encoder.encode(texts, kind, progress=lambda count: progress.advance(task, count))


def _weighed(encoder: SparseEncoder, texts: Texts) -> Csr:
    """Questions as word pieces that weigh ln(1 + (N - df + .5) / (df + .5)), df counted over the passages."""
    found = np.bincount(np.concatenate(encoder.pieces(texts.passages)), minlength=encoder.vocabulary)
    idf = np.log1p((len(texts.passages) - found + 0.5) / (found + 0.5)).astype(np.float32)
    return concatenate([idf_query(pieces, idf) for pieces in encoder.pieces(texts.questions)])


def _without_empty(vectors: Csr) -> Csr:
    return vectors.take(np.flatnonzero(np.diff(vectors.offsets)))
