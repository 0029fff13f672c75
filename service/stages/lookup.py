"""What is looked up of passages that others found: scores, texts, and the passages of their documents."""

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from service.snapshot import Part
from service.types import Scores, Search, Seqs

BLOCK_ROWS = 32_768

Rows = NDArray[np.int64]
Places = NDArray[np.intp]


def by_part(search: Search, seqs: Seqs) -> Iterator[tuple[Part, Places, Rows]]:
    """Every part that has some of these passages, with their places among `seqs` and their rows in it.

    For worker threads, in blocks short enough to notice a deadline: DeadlineError before the next.
    """
    parts, rows = search.snapshot.locate(seqs)
    for number in np.unique(parts).tolist():
        inside = np.flatnonzero(parts == number)
        for begin in range(0, len(inside), BLOCK_ROWS):
            search.check_time()
            places = inside[begin : begin + BLOCK_ROWS]
            yield search.snapshot.parts[number], places, rows[places]


def scored(search: Search, seqs: Seqs, score: Callable[[Part, Rows], Scores]) -> Scores:
    """float32 [seqs]: what `score` gives to the rows of each part."""
    scores = np.empty(len(seqs), np.float32)
    for part, places, rows in by_part(search, seqs):
        scores[places] = score(part, rows)
    return scores


def texts(search: Search, seqs: Seqs) -> list[tuple[str, str]]:
    """Title and text of every passage, in the order of `seqs`: both as they are stored."""
    found = [("", "")] * len(seqs)
    for part, places, rows in by_part(search, seqs):
        for place, row in zip(places.tolist(), rows.tolist(), strict=True):
            found[place] = text_of(part, row)
    return found


def text_of(part: Part, row: int) -> tuple[str, str]:
    """Title and text of a passage."""
    store = part.segment.store
    document = store.document(int(store.document_of_row[row]))
    begin, end = store.spans[row].tolist()
    return document["title"], document["text"][begin:end]


def documents(search: Search, seqs: Seqs) -> list[tuple[str, str]]:
    """Title and whole text of the document of every passage, in the order of `seqs`."""
    found = [("", "")] * len(seqs)
    for part, places, rows in by_part(search, seqs):
        store = part.segment.store
        for place, number in zip(places.tolist(), store.document_of_row[rows].tolist(), strict=True):
            document = store.document(number)
            found[place] = document["title"], document["text"]
    return found


def siblings(search: Search, seqs: Seqs) -> tuple[Seqs, Places]:
    """Every allowed passage of the documents of `seqs`, and the place in `seqs` that each is there for.

    Ordered by this place, then by passage.
    """
    found, owners = [np.empty(0, np.int64)], [np.empty(0, np.intp)]
    for part, places, rows in by_part(search, seqs):
        store = part.segment.store
        documents = store.document_of_row[rows].astype(np.int64)
        begins = store.first_row[documents]
        sizes = store.first_row[documents + 1] - begins
        ends = np.cumsum(sizes)
        found.append(store.seqs[np.arange(ends[-1]) + np.repeat(begins - ends + sizes, sizes)])
        owners.append(np.repeat(places, sizes))
    every, owner = np.concatenate(found), np.concatenate(owners)
    order = np.lexsort((every, owner))
    order = order[search.may_find(every[order])]
    return every[order], owner[order]
