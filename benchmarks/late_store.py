"""What stores of token vectors cost and lose: bytes a passage and nDCG@10, against float32 without pooling.

    python -m benchmarks.late_store BEIR_FOLDER… [--queries 300]

Every passage of a collection is scored for every question by late interaction alone, a document by its best
passage, so that nothing but the store makes a difference. The first row is no store: float32 token vectors,
one for every token that counts, multiplied as such.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.machine import describe
from benchmarks.options import of_folders
from indexer.build import Passages
from indexer.document import Document
from indexer.segment.late import Late, question, write_late
from indexer.segment.manifest import CollectionSchema
from indexer.sources import read_documents
from indexer.token_vectors import codebook, token_rows
from models.late import LateEncoder
from models.maxsim import products
from service.commands.encoding_cache import cache_home
from service.commands.evaluate import Task
from service.evaluation import Answer, per_query

STORES: dict[str, dict[str, Any]] = {
    "int8": {"late_pooling": "none"},
    "int8, words": {"late_pooling": "words"},
    "int8, alike ÷ 2": {"late_pooling": "hierarchical", "late_pool": 2},
    "int8, alike ÷ 3": {"late_pooling": "hierarchical", "late_pool": 3},
    "int8, alike ÷ 4": {"late_pooling": "hierarchical", "late_pool": 4},
    "int8, 32 clusters": {"late_pooling": "clusters", "late_pool": 32},
    "residual4": {"late_pooling": "none", "late_precision": "residual4"},
    "residual4, words": {"late_pooling": "words", "late_precision": "residual4"},
}

Scores = NDArray[np.float32]
Row = tuple[float, float, float]  # vectors and bytes a passage, nDCG@10


class Encoded:
    """The encoder, which encodes each text once however many stores are made of it."""

    def __init__(self, encoder: LateEncoder) -> None:
        self.fingerprint, self.dim, self.max_tokens = encoder.fingerprint, encoder.dim, encoder.max_tokens
        self.offsets, self.tokenize, self.pieces = encoder.offsets, encoder.tokenize, encoder.pieces
        self.sample_texts = encoder.sample_texts
        self._encoder = encoder
        self._known: dict[str, Scores] = {}

    def encode(self, texts: Sequence[str], *, progress: Callable[[int], None] | None = None) -> list[Scores]:
        """Vectors of each text."""
        missing = [text for text in dict.fromkeys(texts) if text not in self._known]
        self._known.update(zip(missing, self._encoder.encode(missing), strict=True))
        return [self._known[text] for text in texts]


def main() -> None:
    """Measure and print."""
    options = of_folders(__doc__).parse_args()
    print(describe("torch", "numpy"))
    encoder = LateEncoder.load(cache=cache_home() / "models")
    for folder in options.folders:
        task = Task.read(folder, options.queries, 0)
        print(f"\n{folder.name}: {len(task.queries)} questions\n")
        print("| store | vectors a passage | bytes a passage | nDCG@10 |\n|---|---|---|---|")
        for name, (vectors, size, ndcg) in _rows(folder, task, encoder):
            print(f"| {name} | {vectors:.0f} | {size:,.0f} | {ndcg:.4f} |", flush=True)


def _rows(folder: Path, task: Task, encoder: LateEncoder) -> Iterator[tuple[str, Row]]:
    documents, net = list(read_documents(folder)), Encoded(encoder)
    passages = Passages.of(documents, CollectionSchema(), [net])
    texts = passages.encoded_texts()
    asked = dict(zip(task.queries, encoder.encode(list(task.queries.values()), "query"), strict=True))

    def ndcg(scores: Mapping[str, Scores]) -> float:
        answers = {each: _answer(of, passages.document_of_row, documents) for each, of in scores.items()}
        return float(per_query(task.qrels, answers)["nDCG@10"].mean())

    whole = net.encode(texts)
    count = sum(map(len, whole)) / len(texts)
    yield "float32", (count, count * 4 * encoder.dim, ndcg(_exactly(whole, asked)))
    for name, store in STORES.items():
        schema = CollectionSchema(**store)
        with TemporaryDirectory(prefix="winnow-") as root:
            rows = token_rows(texts, schema, net, lambda _: None)
            write_late(Path(root) / "late", rows, net.dim, schema.late_precision, codebook(schema, net))
            late = Late(Path(root) / "late")
            every = np.arange(late.rows)
            scores = {each: late.scores(question(of), every, products) for each, of in asked.items()}
            yield name, (late.vectors / late.rows, late.bytes / late.rows, ndcg(scores))


def _exactly(passages: Sequence[Scores], asked: Mapping[str, Scores]) -> dict[str, Scores]:
    """The definition, in float32."""
    vectors, begins = np.concatenate(passages), np.cumsum([0, *map(len, passages)])[:-1]
    return {
        each: np.maximum.reduceat(vectors @ of.T, begins, axis=0).mean(axis=1) for each, of in asked.items()
    }


def _answer(scores: Scores, document_of_row: NDArray[np.uint32], documents: Sequence[Document]) -> Answer:
    """Documents by their best passages."""
    best = np.full(len(documents), -np.inf, np.float32)
    np.maximum.at(best, document_of_row, scores)
    return Answer([documents[number].id for number in np.argsort(-best, kind="stable")[:1000]], 0.0)


if __name__ == "__main__":
    main()
