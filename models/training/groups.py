"""What every recipe trains on: questions, each with mined documents and what teachers think of them.

A file of groups is JSON lines, gzipped if its name ends in .gz:

    {"query": "what pulls the tide", "documents": [["Tides", "The moon pulls the sea."], ["", "Cats sleep."]],
     "relevant": [true, false], "scores": {"bm25": [4.1, 0.0], "dense": [0.8, 0.1]}, "source": "my_folder"}

So teachers are asked once, however often students are trained.
"""

import gzip
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch


@dataclass(frozen=True, slots=True)
class Group:
    """A question and documents, which are titles and texts, in any order.

    `relevant` says of each whether it answers; none may, and then only teachers tell. `scores` are those of
    each teacher, on a scale of its own, higher for better: a number for every document. `source` is the
    collection that it is of. ValueError unless all are of one length, or for a group without documents.
    """

    query: str
    documents: tuple[tuple[str, str], ...]
    relevant: tuple[bool, ...]
    scores: Mapping[str, tuple[float, ...]]
    source: str

    def __post_init__(self) -> None:
        lengths = {len(self.documents), len(self.relevant), *map(len, self.scores.values())}
        if len(lengths) > 1 or not self.documents:
            raise ValueError(
                f"documents, relevant and scores have {sorted(lengths)} entries, not as many each"
            )

    def take(self, rows: Sequence[int]) -> "Group":
        """The same question with some of the documents, in this order."""
        return Group(
            self.query,
            tuple(self.documents[row] for row in rows),
            tuple(self.relevant[row] for row in rows),
            {name: tuple(scores[row] for row in rows) for name, scores in self.scores.items()},
            self.source,
        )

    @property
    def texts(self) -> list[str]:
        """Titles and texts joined, as encoders read them."""
        return [f"{title} {text}" if title else text for title, text in self.documents]


def read_groups(path: Path) -> list[Group]:
    """All groups of a file. ValueError names the line that is none."""
    return list(_read(path))


def write_groups(path: Path, groups: Iterable[Group]) -> int:
    """Write a file of groups, and return how many they were. A reader never sees a part of it."""
    partial = path.with_name(f"{path.name}.partial")
    number = 0
    opened: Any = gzip.open if path.suffix == ".gz" else open
    with opened(partial, "wt", encoding="utf-8") as file:
        for group in groups:
            file.write(json.dumps(_plain(group), ensure_ascii=False) + "\n")
            number += 1
    partial.replace(path)
    return number


def split(groups: Iterable[Group], share: float, seed: int) -> tuple[list[Group], list[Group]]:
    """Training and validation: about a `share` (0 to 1) of the questions, by a hash of seed and question.

    A question falls on the same side whatever else is in the file, and so does one that is asked twice.
    """
    sides: tuple[list[Group], list[Group]] = [], []
    for group in groups:
        sides[held_out(group.query, share, seed)].append(group)
    return sides


def held_out(query: str, share: float, seed: int) -> bool:
    """Whether a question belongs to validation."""
    digest = sha256(f"{seed} {query}".encode()).digest()
    return int.from_bytes(digest[:8], "big") < share * 2**64


def _read(path: Path) -> Iterator[Group]:
    opened: Any = gzip.open if path.suffix == ".gz" else open
    with opened(path, "rt", encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            try:
                yield _group(json.loads(line))
            except (ValueError, KeyError, TypeError) as error:
                raise ValueError(f"{path}, line {number}, is no group of documents: {error}") from error


def _group(value: Mapping[str, Any]) -> Group:
    documents = tuple((str(title), str(text)) for title, text in value["documents"])
    scores = {name: tuple(map(float, each)) for name, each in value["scores"].items()}
    return Group(value["query"], documents, tuple(map(bool, value["relevant"])), scores, value["source"])


def _plain(group: Group) -> dict[str, Any]:
    return {
        "query": group.query,
        "documents": group.documents,
        "relevant": group.relevant,
        "scores": dict(group.scores),
        "source": group.source,
    }


def sample(group: Group, documents: int, generator: torch.Generator) -> Group:
    """A relevant document if there is any, and others by chance, `documents` in all if there are so many."""
    positives = [row for row, relevant in enumerate(group.relevant) if relevant]
    others = [row for row, relevant in enumerate(group.relevant) if not relevant]
    kept = [positives[int(torch.randint(len(positives), (), generator=generator))]] if positives else []
    drawn = torch.randperm(len(others), generator=generator)[: documents - len(kept)].tolist()
    return group.take(kept + [others[row] for row in drawn])
