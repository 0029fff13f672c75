"""Top k by BM25 in one segment, against tantivy and bm25s, side by side in one run.

    python -m benchmarks.bm25 [--passages 100000] [--words 58] [--k 10 1000]

Text is synthetic: words follow Zipf's law over 200,000, with and without the 100
most frequent, which a list of stop words would drop; a question is five words of
one passage. Every question goes to every engine in turn, so that all see the same
load and each finds the processor's caches full of the others' data. tantivy gets a
ready-made query; bm25s (numba) and ours get the words. Scores of ours and bm25s
must agree, rank by rank; tantivy rounds lengths to a byte, so its scores are close
but not equal.
"""

import argparse
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import bm25s
import numpy as np
import tantivy
from numpy.typing import NDArray

from benchmarks.machine import describe
from indexer.kernels import warm
from indexer.segment.lexical import Lexical, idf, write_lexical

VOCABULARY = 200_000
STOP_WORDS = 100
K1, B = 1.2, 0.75

Passages = list[list[str]]
Engine = Callable[[int, int], NDArray[np.float32]]  # number of a question, k -> scores


def passages(count: int, words: int, skip: int, rng: np.random.Generator) -> Passages:
    """Passages of Zipf-distributed words, of about `words` each, without the `skip` most frequent."""
    chances = 1 / np.arange(1 + skip, VOCABULARY + 1)
    lengths = np.clip(rng.lognormal(np.log(words) - 0.08, 0.4, count), 5, 5 * words).astype(int)
    drawn = np.searchsorted(np.cumsum(chances) / chances.sum(), rng.random(lengths.sum())) + skip
    names = [f"w{number}" for number in range(VOCABULARY)]
    return [[names[n] for n in part] for part in np.split(drawn, np.cumsum(lengths)[:-1])]


def questions(texts: Passages, count: int, rng: np.random.Generator) -> list[list[str]]:
    """Five different words of a passage each, sorted."""
    found: list[list[str]] = []
    while len(found) < count:
        words = sorted(set(texts[rng.integers(len(texts))]))
        if len(words) >= 5:
            found.append(sorted(rng.choice(words, 5, replace=False).tolist()))
    return found


def winnow_engine(directory: Path, texts: Passages, asked: Sequence[Sequence[str]]) -> Engine:
    """Our search, with looking up the words, their document frequencies and weights."""
    write_lexical(directory / "lexical", texts, [[] for _ in texts])
    segment = Lexical(directory / "lexical")
    average = float(segment.body_lengths.mean())

    def search(question: int, k: int) -> NDArray[np.float32]:
        terms = segment.lookup(asked[question])
        weights = idf(segment.rows, segment.live_df(terms)).astype(np.float32)
        return segment.search(terms, weights, K1, B, 1.0, average, k)[1]

    return search


def tantivy_engine(directory: Path, texts: Passages, asked: Sequence[Sequence[str]]) -> Engine:
    """A bare search of a ready-made boolean query, without counting."""
    builder = tantivy.SchemaBuilder()
    builder.add_text_field("body", tokenizer_name="whitespace", index_option="freq")
    schema = builder.build()
    index = tantivy.Index(schema, path=str(directory))
    writer = index.writer(400_000_000, 1)
    for text in texts:
        writer.add_document(tantivy.Document(body=[" ".join(text)]))
    writer.commit()
    writer.wait_merging_threads()
    index.reload()
    searcher, should = index.searcher(), tantivy.Occur.Should
    ready = [
        tantivy.Query.boolean_query(
            [(should, tantivy.Query.term_query(schema, "body", word, "freq")) for word in words]
        )
        for words in asked
    ]

    def search(question: int, k: int) -> NDArray[np.float32]:
        hits = searcher.search(ready[question], k, count=False).hits
        return np.array([score for score, _ in hits], np.float32)

    return search


def bm25s_engine(texts: Passages, asked: Sequence[Sequence[str]]) -> Engine:
    """bm25s with its numba backend, one question a call."""
    retriever = bm25s.BM25(k1=K1, b=B, method="lucene", backend="numba")
    retriever.index(texts, show_progress=False)

    def search(question: int, k: int) -> NDArray[np.float32]:
        found = retriever.retrieve([asked[question]], k=k, show_progress=False, n_threads=1)
        return np.asarray(found.scores[0], np.float32)

    return search


def measure(engines: dict[str, Engine], count: int, k: int, rounds: int) -> dict[str, NDArray[np.float64]]:
    """Microseconds per question and engine: the least of the rounds of each question, interleaved."""
    times = {name: np.full((rounds, count), np.inf) for name in engines}
    for turn in range(rounds):
        for question in range(count):
            for name, engine in engines.items():
                begin = time.perf_counter()
                engine(question, k)
                times[name][turn, question] = (time.perf_counter() - begin) * 1e6
    return {name: each.min(axis=0) for name, each in times.items()}


def check(engines: dict[str, Engine], count: int, k: int) -> None:
    """Our scores are bm25s's, rank by rank; where we find fewer than k, it pads with zeros."""
    for question in range(count):
        mine, theirs = engines["winnow"](question, k), engines["bm25s numba"](question, k)
        padded = np.zeros(len(theirs), np.float32)
        padded[: len(mine)] = mine
        np.testing.assert_allclose(padded, theirs, rtol=1e-4, atol=1e-5)


def report(times: dict[str, NDArray[np.float64]], k: int) -> None:
    """A line per engine: median, mean and 95th percentile, and the ratio of its median to ours."""
    base = float(np.median(times["winnow"]))
    for name, each in times.items():
        median = float(np.median(each))
        print(
            f"  k={k:<5} {name:<12} median {median:7.1f} µs  mean {each.mean():7.1f}  "
            f"p95 {np.percentile(each, 95):7.1f}  winnow takes {base / median:.2f} × its median"
        )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--passages", type=int, default=100_000)
    parser.add_argument("--words", type=int, default=58, help="mean words of a passage")
    parser.add_argument("--questions", type=int, default=300)
    parser.add_argument("--k", type=int, nargs="+", default=[10, 1000])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    warm()
    print(describe("numba", "tantivy", "bm25s"))
    for skip in (STOP_WORDS, 0):
        rng = np.random.default_rng(options.seed)
        texts = passages(options.passages, options.words, skip, rng)
        asked = questions(texts, options.questions, rng)
        with tempfile.TemporaryDirectory() as temporary:
            engines = {
                "winnow": winnow_engine(Path(temporary), texts, asked),
                "tantivy": tantivy_engine(Path(temporary), texts, asked),
                "bm25s numba": bm25s_engine(texts, asked),
            }
            print(f"{len(texts):,} passages {'without' if skip else 'with'} the {STOP_WORDS} commonest words")
            for k in options.k:
                check(engines, len(asked), k)
                report(measure(engines, len(asked), k, options.rounds), k)
    print("Scores of winnow and bm25s were equal, rank by rank, for every question.")


if __name__ == "__main__":
    main()
