"""What a stretch of the log comes to: for each id the last operation counts, those before never happened.

Deletions by filter depend on everything before them and must not see what comes after, so they cut the log
into batches. Several of them in a row make one batch: what one deletes, the next need not see.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import orjson

from indexer.document import Document
from indexer.filters import Filter, parse
from indexer.queue.contract import Entry, Operation


@dataclass(frozen=True, slots=True)
class Batch:
    """Changes to make at once: ids whose documents go, filters whose documents go, and documents that come.

    `documents` have different ids, all of them in `ids`, and are in order of their operations. After it the
    log is applied up to `position`.
    """

    position: int
    ids: tuple[str, ...] = ()
    filters: tuple[Filter, ...] = ()
    documents: tuple[Document, ...] = ()


def cut(entries: Sequence[Entry]) -> Sequence[Entry]:
    """Return the entries at the head that may be applied at once."""
    barrier = [entry.operation.kind == "delete_where" for entry in entries]
    return entries[: next((at for at, each in enumerate(barrier) if each != barrier[0]), len(entries))]


def resolve(entries: Sequence[Entry]) -> Batch:
    """Read one stretch, as `cut` gives it. ValueError if a payload cannot be read."""
    position = entries[-1].position
    if entries[0].operation.kind == "delete_where":
        return Batch(
            position, filters=tuple(parse(orjson.loads(entry.operation.payload)) for entry in entries)
        )
    last: dict[str, Document | None] = {}
    for entry in entries:
        key, document = _read(entry.operation)
        last.pop(key, None)  # so that the order is that of the last operations
        last[key] = document
    return Batch(position, ids=tuple(last), documents=tuple(each for each in last.values() if each))


def _read(operation: Operation) -> tuple[str, Document | None]:
    """Return an id and the document it is to have from now on, if any."""
    if operation.kind == "upsert":
        document = Document.from_json(operation.payload)
        return document.id, document
    if operation.kind == "delete":
        return operation.payload.decode(), None
    raise ValueError(f"this version does not know operations of the kind {operation.kind!r}")
