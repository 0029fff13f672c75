"""Training groups from a BEIR-style folder: what Winnow's own retrievers find for each of its questions.

The folder is indexed for the time of this, and three retrievers that have seen none of its judgments are the
teachers: BM25 of passages, the dense encoder, and SPLADE with both sides encoded by the net. Documents of a
group are the passages that they find, best first; what comes high and is not relevant is a hard negative.
Teachers score all documents of a group, whoever found them, as a search would.

Groups are kept, and not made again for the same texts and options.
"""

import json
import random
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from rich.progress import Progress

from indexer.sources import has_qrels, has_queries, read_documents, read_qrels, read_queries
from models.load import MINILM, SPLADE
from models.training.groups import Group, read_groups, write_groups
from service.commands.common import CommandError
from service.commands.encoding_cache import cache_home
from service.commands.pairs import document_of, write_pairs
from service.commands.trial_run import TrialRun
from service.pipeline import NOTHING
from service.snapshot import Snapshot
from service.stages import Bm25, Dense, Sparse
from service.stages.lookup import texts
from service.stages.normalise import minmax
from service.types import Hits, Scores, Search, Seqs

TrainingTask = Literal["judged", "ict", "bfs"]

FORMAT = 1  # of what mining does: groups that were kept are made anew when it changes
SPLITS = ("train", "test")
TEACHERS: dict[str, Any] = {
    "components": ["bm25", "dense", "sparse"],
    "lexical_unit": "passage",
    "encoder": MINILM,
    "sparse_encoder": SPLADE,
    "sparse_query": "encoder",
}
"""How a collection is indexed whose retrievers teach, whatever collections are by default."""


@dataclass(frozen=True)
class Options:
    """What is mined. `task` is by default `judged` for a folder with questions, else `ict`; of the questions
    at most `queries` are taken, chosen by `seed`. Each teacher looks `depth` passages deep, and a group has
    at most so many `documents`.
    """

    task: TrainingTask | None = None
    queries: int | None = None
    seed: int = 0
    documents: int = 16
    depth: int = 200
    language: str = "en"


@dataclass(frozen=True)
class Questions:
    """What is asked of a collection: text by id, and the ids of relevant documents, if any are known.

    `made` says that questions were made of its text: then `folder` has passages as documents.
    """

    folder: Path
    source: str
    queries: Mapping[str, str]
    relevant: Mapping[str, frozenset[str]]
    made: bool


@dataclass(frozen=True)
class Mined:
    """The groups of some questions, and the file that they are kept in."""

    path: Path
    questions: Questions
    groups: list[Group]

    @property
    def skipped(self) -> int:
        """Questions of which no group could be made."""
        return len(self.questions.queries) - len(self.groups)


def questions_of(data: Path, out: Path, options: Options) -> Questions:
    """The questions of a folder, or those made of its text, which are then a folder below `out`.

    CommandError or SourceError if there are none.
    """
    task = options.task or ("judged" if has_queries(data) else "ict")
    source = data.resolve().name
    if task == "judged":
        return _sample(_judged(data, source), options)
    settled = {"format": FORMAT, "task": task, "queries": options.queries, "seed": options.seed}
    digest = _digest(_corpus(data), settled)
    folder = out / "groups" / f"{source}-{task}-{digest}"
    if not folder.is_dir():
        write_pairs(data, folder, task, options.queries, options.seed)
    qrels = read_qrels(folder)
    relevant = {query: frozenset(grades) for query, grades in qrels.items()}
    return Questions(folder, source, read_queries(folder), relevant, made=True)


def mine(questions: Questions, out: Path, options: Options, progress: Progress) -> Mined:
    """Make groups of these questions, or read them if `out` has them already.

    CommandError if there are none.
    """
    path = out / "groups" / f"{questions.source}-{_digest(*_settled(questions, options))}.jsonl.gz"
    if path.is_file():
        return Mined(path, questions, read_groups(path))
    groups = _mine(questions, options, progress)
    if not groups:
        raise CommandError(
            f"{questions.folder}: of {len(questions.queries)} queries none has a relevant document in the "
            "corpus and another beside it, so there is nothing to learn from"
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    write_groups(path, groups)
    return Mined(path, questions, groups)


def choose(
    values: NDArray[np.float64],
    documents: NDArray[np.int64],
    relevant: NDArray[np.bool_],
    fit: Callable[[int], bool],
    number: int,
) -> list[int]:
    """Return rows of at most `number` passages, those of most value first.

    Of each relevant document, of at most `number` // 2, its best passage is there, and none of its others.
    Of what is not relevant only what is `fit` is taken. All arrays have an entry a passage; `documents`
    tells which are of the same document.
    """
    order = np.lexsort((np.arange(len(values)), -values)).tolist()
    best: dict[int, int] = {}
    for row in order:
        if relevant[row]:
            best.setdefault(int(documents[row]), row)
    chosen = set(list(best.values())[: max(1, number // 2)])
    for row in order:
        if len(chosen) >= number:
            break
        if not relevant[row] and fit(row):
            chosen.add(row)
    return [row for row in order if row in chosen]


class Miner:
    """Makes a group of a question by what the retrievers of a snapshot find."""

    def __init__(self, questions: Questions, snapshot: Snapshot, options: Options) -> None:
        self.questions = questions
        self.number = options.documents
        depth = options.depth
        self.teachers = {
            "bm25": Bm25(k=depth),
            "dense": Dense(k=depth),
            "sparse": Sparse(k=depth, strategy="exact"),
        }
        self._families = _Families(snapshot, document_of if questions.made else str)
        self._texts: dict[int, tuple[str, str]] = {}  # so that groups that share a passage share its text

    async def __call__(self, query: str, search: Search) -> Group | None:
        """Make the group of a question; None without two documents or, where it has relevant ones, one."""
        for stage in self.teachers.values():
            stage.begin(search)
        found = {name: await stage(search, NOTHING) for name, stage in self.teachers.items()}
        known = _passages_of(search, self.questions.relevant.get(query, frozenset()))
        seqs = np.unique(np.concatenate([known, *(hits.seqs for hits in found.values())]))
        scores = {name: await stage.score(search, seqs) for name, stage in self.teachers.items()}
        return await search.in_thread(self._group, query, search, seqs, scores, found, np.isin(seqs, known))

    def _group(
        self,
        query: str,
        search: Search,
        seqs: Seqs,
        scores: Mapping[str, Scores],
        found: Mapping[str, Hits],
        relevant: NDArray[np.bool_],
    ) -> Group | None:
        families = self._families(seqs)
        related = np.isin(families, families[relevant])
        values = np.mean([minmax(scores[name], hits.scores) for name, hits in found.items()], axis=0)

        def fit(row: int) -> bool:
            """Not of a relevant document, and not what says the very words that were made a question."""
            return not related[row] and not (
                self.questions.made and search.query in self._text(search, int(seqs[row]))[1]
            )

        rows = choose(values, families, relevant, fit, self.number)
        wanted = query in self.questions.relevant
        if len(rows) < 2 or (wanted and not 0 < relevant[rows].sum() < len(rows)):
            return None
        return Group(
            search.query,
            tuple(self._text(search, int(seq)) for seq in seqs[rows]),
            tuple(relevant[rows].tolist()),
            {
                name: tuple(round(score, 5) for score in given[rows].tolist())
                for name, given in scores.items()
            },
            self.questions.source,
        )

    def _text(self, search: Search, seq: int) -> tuple[str, str]:
        if seq not in self._texts:
            (self._texts[seq],) = texts(search, np.array([seq], np.int64))
        return self._texts[seq]


class _Families:
    """A number for each passage that is the same for those of one document."""

    def __init__(self, snapshot: Snapshot, of: Callable[[str], str]) -> None:
        self._snapshot, numbers = snapshot, dict[str, int]()
        self._of_document = [
            np.array([numbers.setdefault(of(each), len(numbers)) for each in part.segment.store.ids()])
            for part in snapshot.parts
        ]

    def __call__(self, seqs: Seqs) -> NDArray[np.int64]:
        parts, rows = self._snapshot.locate(seqs)
        numbers = np.empty(len(seqs), np.int64)
        for part, of_document in enumerate(self._of_document):
            inside = parts == part
            store = self._snapshot.parts[part].segment.store
            numbers[inside] = of_document[store.document_of_row[rows[inside]]]
        return numbers


def _passages_of(search: Search, documents: frozenset[str]) -> Seqs:
    """All passages of these documents that are in the collection, ascending."""
    found, wanted = [np.empty(0, np.int64)], sorted(documents)
    for part in search.snapshot.parts if wanted else ():
        store = part.segment.store
        numbers = store.find(wanted)
        found += [store.seqs[list(store.rows_of(number))] for number in numbers[numbers >= 0].tolist()]
    seqs = np.sort(np.concatenate(found))
    return seqs[search.may_find(seqs)]


def _mine(questions: Questions, options: Options, progress: Progress) -> list[Group]:
    with TemporaryDirectory(prefix="winnow-") as root:
        run = TrialRun(Path(root), cache_home(), list(TEACHERS["components"]), None, progress)
        run.index(questions.folder, {**TEACHERS, "language": options.language})
        made = run.worked(questions.queries, Miner(questions, run.snapshot(), options))
    return [group for group in made.values() if group is not None]


def _judged(data: Path, source: str) -> Questions:
    """The questions of a folder that have relevant documents; all of them where nothing is judged."""
    queries = read_queries(data)
    if not has_qrels(data, SPLITS):
        return Questions(data, source, queries, {}, made=False)
    qrels = read_qrels(data, SPLITS).items()
    relevant = {query: frozenset(each for each, grade in of.items() if grade > 0) for query, of in qrels}
    asked = {query: text for query, text in queries.items() if relevant.get(query)}
    return Questions(data, source, asked, relevant, made=False)


def _sample(questions: Questions, options: Options) -> Questions:
    """At most so many of the questions."""
    queries, number = questions.queries, options.queries
    if not queries:
        raise CommandError(f"{questions.folder}: no query has a relevant document")
    if number is not None and number < len(queries):
        chosen = set(random.Random(options.seed).sample(sorted(queries), number))  # noqa: S311 - no secret
        queries = {query: text for query, text in queries.items() if query in chosen}
    relevant = {query: each for query, each in questions.relevant.items() if query in queries}
    return Questions(questions.folder, questions.source, queries, relevant, questions.made)


def _rounded(scores: Scores) -> tuple[float, ...]:
    return tuple(round(score, 5) for score in scores.tolist())


def _settled(questions: Questions, options: Options) -> tuple[Iterable[bytes], dict[str, Any]]:
    """Everything that groups depend on: texts, and options."""
    relevant = {query: sorted(ids) for query, ids in questions.relevant.items()}
    asked = json.dumps([dict(questions.queries), relevant]).encode()
    depths = {"documents": options.documents, "depth": options.depth, "language": options.language}
    return (*_corpus(questions.folder), asked), {
        "format": FORMAT,
        "made": questions.made,
        **depths,
        **TEACHERS,
    }


def _corpus(folder: Path) -> Iterable[bytes]:
    return (document.to_json() for document in read_documents(folder))


def _digest(texts_of: Iterable[bytes], settled: Mapping[str, Any]) -> str:
    """Sixteen hex digits that change with any of these."""
    digest = sha256(json.dumps(settled, sort_keys=True).encode())
    for text in texts_of:
        digest.update(len(text).to_bytes(8, "big") + text)
    return digest.hexdigest()[:16]
