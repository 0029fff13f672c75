"""Reads a collection's current generation the plainest way, for tests that look at what a worker wrote."""

import os
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from indexer.part import Part, total
from indexer.segment.analyzer import Analyzer
from indexer.segment.fulltext import Fulltext
from indexer.segment.lexical import idf
from indexer.segment.manifest import Manifest, read_current, verify_files
from indexer.segment.sparse import question
from tests.nets import WordOverlapEncoder, WordOverlapSparseEncoder

Scored = list[tuple[str, float]]
MEMORY = Path("/dev/shm")


@contextmanager
def quick_directory() -> Iterator[Path]:
    """A directory where fsync costs nothing, if the machine has one.

    A reader of tantivy's that is going may still make a lock file in it while it is removed.
    """
    memory = MEMORY if os.access(MEMORY, os.W_OK) else None
    with tempfile.TemporaryDirectory(dir=memory, ignore_cleanup_errors=True) as path:
        yield Path(path)


class Reading:
    """One generation with its passages as (document id, score), best first."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.manifest: Manifest = read_current(directory)
        self.parts = [Part.open(directory, entry) for entry in self.manifest.segments]

    def ids(self) -> list[str]:
        """Ids of the live documents, each as often as it is there, by passage number."""
        return [
            part.segment.store.id(number)
            for part in self.parts
            for number in range(part.segment.store.documents)
            if not part.dead[part.segment.store.rows_of(number).start]
        ]

    def texts(self) -> dict[str, str]:
        """Texts of the live documents."""
        found = {}
        for part in self.parts:
            store = part.segment.store
            for number in np.unique(store.document_of_row[~part.dead]).tolist():
                found[store.id(number)] = store.document(number)["text"]
        return found

    def bm25(self, query: str) -> Scored:
        """Every passage with a word of the query, by our BM25."""
        schema, live = self.manifest.schema_, self.manifest.statistics
        counts = Counter(Analyzer(schema.language).analyze(query))
        terms = sorted(counts)
        parts = [(part, part.segment.lexical) for part in self.parts if part.segment.lexical is not None]
        frequencies = np.zeros(len(terms), np.int64)
        for part, lexical in parts:
            frequencies += lexical.live_df(lexical.lookup(terms), part.dead)
        weights = (idf(live.passages, frequencies) * [counts[term] for term in terms]).astype(np.float32)
        average = (live.body_terms + schema.title_boost * live.title_terms) / max(1, live.passages)
        parameters = (schema.k1, schema.b, schema.title_boost, average)
        return _ranked(
            (part, *lexical.search(lexical.lookup(terms), weights, *parameters, 10**6, ~part.dead))
            for part, lexical in parts
        )

    def dense(self, query: str) -> Scored:
        """Every passage, by cosine."""
        vector = WordOverlapEncoder().encode([query])[0]
        return _ranked(
            (part, *part.segment.dense.search(vector, 10**6, ~part.dead))
            for part in self.parts
            if part.segment.dense is not None
        )

    def sparse(self, query: str) -> Scored:
        """Every passage with a word of the query, by how many it has."""
        terms, weights = WordOverlapSparseEncoder().encode([query], "query").row(0)
        return _ranked(
            (part, *part.segment.sparse.search(asked, 10**6, ~part.dead))
            for part in self.parts
            if part.segment.sparse is not None
            for asked in [question(terms, weights, part.segment.sparse.step)]
        )

    def full_text(self, query: str) -> list[str]:
        """Ids of the passages that tantivy finds, alive or not by our tombstones, sorted."""
        if self.manifest.lexical is None:
            return []
        analyzer = Analyzer(self.manifest.schema_.language)
        seqs, _ = Fulltext(self.directory / self.manifest.lexical.directory, analyzer).search(query, 10**6)
        by_seq = {
            seq: part.segment.store.id(number)
            for part in self.parts
            for seq, number in zip(
                part.segment.store.seqs.tolist(), part.segment.store.document_of_row.tolist(), strict=True
            )
        }
        return sorted(by_seq[seq] for seq in seqs.tolist())

    def check(self) -> None:
        """Whole files, right statistics, no file that the generation does not name."""
        manifest = self.manifest
        assert manifest.statistics == total(self.parts)
        for part in self.parts:
            verify_files(part.segment.path, part.entry.files)
            assert part.entry.dead_rows == part.dead.sum()
            if part.entry.tombstones and part.entry.tombstones_entry:
                verify_files(
                    self.directory / "tombstones", {part.entry.tombstones: part.entry.tombstones_entry}
                )
        if manifest.lexical is not None:
            verify_files(self.directory / manifest.lexical.directory, manifest.lexical.files)
        firsts = [seq for part in self.parts for seq in (part.entry.first_seq, part.entry.last_seq)]
        assert firsts == sorted(firsts)
        assert not firsts or firsts[-1] < manifest.next_seq

    def files(self) -> set[str]:
        """Names of what lies in the collection's directory and is subject to sweeping."""
        patterns = ("segments/*", "tombstones/*", "lexical-*", "manifest-*", "CURRENT*")
        return {
            str(path.relative_to(self.directory)) for each in patterns for path in self.directory.glob(each)
        }

    def named(self) -> set[str]:
        """Names of what the generation consists of."""
        manifest = self.manifest
        names = {"CURRENT", f"manifest-{manifest.generation:06d}.json"}
        names |= {f"segments/{entry.name}" for entry in manifest.segments}
        names |= {f"tombstones/{entry.tombstones}" for entry in manifest.segments if entry.tombstones}
        return names | ({manifest.lexical.directory} if manifest.lexical else set())


def _ranked(found: Iterator[tuple[Part, np.ndarray, np.ndarray]]) -> Scored:
    seqs, ids, scores = [], [], []
    for part, rows, values in found:
        store = part.segment.store
        seqs += store.seqs[rows].tolist()
        ids += [store.id(number) for number in store.document_of_row[rows].tolist()]
        scores += values.tolist()
    order = sorted(range(len(seqs)), key=lambda at: (-scores[at], seqs[at]))
    return [(ids[at], scores[at]) for at in order]
