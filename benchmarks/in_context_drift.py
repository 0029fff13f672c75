"""What 8 bits do to reranking in context: stored keys and kept documents against those of the net itself.

    python -m benchmarks.in_context_drift FOLDER … [--queries 40] [--candidates 20]

BEIR folders. The candidates of a question are the best by BM25 over whole documents, cut as the net reads
them; keys are stored as a segment stores them, documents kept as the service keeps them. For both: Kendall's
tau of the scores with and without 8 bits, how often the first is the same, and nDCG@10 of the scores alone
and mixed with BM25's (0.2, min-max), with and without.
"""

import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import bm25s
import numpy as np
from numpy.typing import NDArray
from scipy.stats import kendalltau

from benchmarks.machine import describe
from benchmarks.options import of_folders
from indexer.document import Document
from indexer.kernels import warm
from indexer.passage_keys import key_centre
from indexer.segment.keys import Keys, combine, key_rows, write_keys
from indexer.sources import read_documents, read_qrels, read_queries
from models.in_context.cache import KVCache, document_key
from models.in_context.net import InContextNet
from models.in_context.states import Joined
from models.load import SMOLLM2
from models.maxsim import products

CACHE = Path.home() / ".cache" / "winnow" / "models"
WEIGHT = 0.2

Scores = NDArray[np.floating[Any]]


def main() -> None:
    """Measure and print."""
    parser = of_folders(__doc__)
    parser.set_defaults(queries=40)
    parser.add_argument("--candidates", type=int, default=20)
    options = parser.parse_args()
    warm()
    net = InContextNet.load(SMOLLM2, cache=CACHE)
    print(describe("torch", "transformers"))
    print(f"{net.name}, {net.dtype}, l* = {net.layer}\n")
    print("| | | tau | first the same | nDCG@10 alone | in 8 bits | mixed | in 8 bits |")
    print("|---|---|---|---|---|---|---|---|")
    for folder in options.folders:
        asked = list(_asked(folder, options.queries, options.candidates))
        for name, score in (("keys", _by_keys), ("cached", _by_documents)):
            rows = np.array([_row(*score(net, *each[:2]), *each[2:]) for each in asked])
            print(f"| {folder.name} | {name} | " + " | ".join(f"{x:.4f}" for x in rows.mean(0)) + " |")
            sys.stdout.flush()


def _asked(folder: Path, queries: int, candidates: int) -> Any:
    """Questions, their candidates, BM25's scores of these and which grade each has; and all grades there
    are.
    """
    documents: list[Document] = list(read_documents(folder))
    texts, qrels = read_queries(folder), read_qrels(folder)
    index = bm25s.BM25(k1=1.2, b=0.75)
    index.index(_words([f"{each.title} {each.text}" for each in documents]), show_progress=False)
    for query in [each for each in texts if each in qrels][:queries]:
        found, scores = index.retrieve(_words([texts[query]]), k=candidates, show_progress=False)
        chosen = [documents[number] for number in found[0].tolist()]
        grades = np.array([max(0, qrels[query].get(each.id, 0)) for each in chosen])
        pairs = [(each.title, each.text) for each in chosen]
        yield texts[query], pairs, scores[0], grades, qrels[query]


def _words(texts: Sequence[str]) -> Any:
    return bm25s.tokenize(list(texts), stopwords="en", show_progress=False)


def _by_keys(net: InContextNet, query: str, pairs: Sequence[tuple[str, str]]) -> tuple[Scores, Scores]:
    """Scores by keys in float32 and as they are stored."""
    (asked,) = net.ask_alone([net.question(query, "keys")])
    keys = net.encode_keys(pairs)
    logits = [np.einsum("rd,trd->rt", asked.vectors, each[:, asked.kv_heads]) for each in keys]
    peak = np.max([each.max(1) for each in logits], axis=0)
    parts = np.stack([np.exp(each - peak[:, None]).sum(1) for each in logits])
    exact = (parts / parts.sum(0)) @ asked.weights
    rows = key_rows(asked.vectors, asked.kv_heads, asked.weights)
    with tempfile.TemporaryDirectory() as folder:
        write_keys(Path(folder) / "keys", [len(each) for each in keys], keys, key_centre(net))
        partials = Keys(Path(folder) / "keys").partials(rows, np.arange(len(keys)), products)
    return exact, combine(*partials, rows.weights)


def _by_documents(net: InContextNet, query: str, pairs: Sequence[tuple[str, str]]) -> tuple[Scores, Scores]:
    """Scores over documents as they were read and as they are kept."""
    ids = [cut.ids for cut in net.document_tokens(pairs)]
    states, question = net.read_documents(ids), net.question(query, "cached")
    cache = KVCache(net.layer, net.kv_heads, net.head_dim, net.dtype, 2**30, net.instruction)
    with cache.lease() as lease:
        kept = [lease.put(document_key("", each), read) for each, read in zip(ids, states, strict=True)]
        exact, rounded = net.ask([question, question], [Joined(states), cache.documents(kept)])
    return exact.scores, rounded.scores


def _row(
    exact: Scores, rounded: Scores, bm25: Scores, grades: NDArray[np.int64], judged: Mapping[str, int]
) -> list[float]:
    ideal = _gain(np.sort([max(0, grade) for grade in judged.values()])[::-1])

    def ndcg(scores: Scores) -> float:
        return _gain(grades[np.argsort(-scores, kind="stable")]) / ideal if ideal else 0.0

    mixed = (WEIGHT * _minmax(each) + (1 - WEIGHT) * _minmax(bm25) for each in (exact, rounded))
    tau = kendalltau(exact, rounded).statistic
    same = float(exact.argmax() == rounded.argmax())
    return [tau, same, ndcg(exact), ndcg(rounded), *map(ndcg, mixed)]


def _gain(grades: NDArray[np.int64]) -> float:
    """Discounted gain of the first ten."""
    first = grades[:10]
    return float(((2.0**first - 1) / np.log2(np.arange(2, len(first) + 2))).sum())


def _minmax(scores: Scores) -> Scores:
    span = np.ptp(scores)
    return (scores - scores.min()) / (span or 1.0)


if __name__ == "__main__":
    main()
