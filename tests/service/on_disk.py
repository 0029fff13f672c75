"""Collections on disk, cut into segments as a test says, and pipelines run on them without HTTP.

Everything is real but the encoders, which score by word overlap: see `tests.nets`. They read six tokens, so
a sentence of four words is a passage.
"""

import math
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast
from uuid import uuid4

import numpy as np
from numpy.typing import NDArray

from indexer.batch import Batch
from indexer.collection import collection_path, create_collection
from indexer.document import Document
from indexer.encoders import CollectionEncoders
from indexer.merge import Merge
from indexer.segment.manifest import CollectionSchema, Component, read_current
from indexer.writer import Writer
from service.pipeline import Outcome, run
from service.snapshot import Part, Snapshot
from service.types import Nets, Search, Stage
from service.workers import Workers
from tests.nets import WordOverlapEncoder, WordOverlapSparseEncoder

COMPONENTS: tuple[Component, ...] = ("bm25", "dense", "sparse")
ENCODERS = CollectionEncoders(
    dense=WordOverlapEncoder(max_tokens=6), sparse=WordOverlapSparseEncoder(max_tokens=6)
)


@contextmanager
def folder() -> Iterator[Path]:
    """A directory in memory, for properties that make hundreds of collections."""
    with TemporaryDirectory(dir="/dev/shm") as path:
        yield Path(path)


def collection(
    root: Path,
    texts: Sequence[str],
    cuts: Collection[int] = (),
    gone: Collection[int] = (),
    merge: bool = False,
    components: tuple[Component, ...] = COMPONENTS,
    **schema: Any,
) -> Snapshot:
    """Documents "0", "1", … of these texts; a segment ends before each number in `cuts`, then `gone` go.

    Passages are numbered from 0 through all texts.
    """
    name = uuid4().hex
    given = {"sparse_query": "encoder", "overlap_sentences": 0, **schema}
    create_collection(root, name, CollectionSchema(components=components, **given))
    documents = [Document(id=str(number), text=text) for number, text in enumerate(texts)]
    writer, begin = Writer(collection_path(root, name)), 0
    for position, end in enumerate(sorted({*cuts, len(documents)})):
        writer.apply(Batch(position, documents=tuple(documents[begin:end])), ENCODERS)
        begin = end
    writer.apply(Batch(len(documents) + 1, ids=tuple(map(str, gone))), CollectionEncoders())
    if merge and len(writer._parts) > 1:
        joined = Merge("m", writer._parts)
        writer.take_in(joined, joined.run(writer.directory))
    writer.close()
    return Snapshot.open(writer.directory, read_current(writer.directory))


class Direct:
    """Nets without a queue; `asked` counts the questions that were encoded."""

    def __init__(self) -> None:
        self.asked = 0

    async def query_vector(self, name: str, fingerprint: str | None, query: str) -> Any:
        self.asked += 1
        return WordOverlapEncoder().encode([query], "query")[0]

    async def query_terms(self, name: str, fingerprint: str | None, query: str) -> Any:
        self.asked += 1
        return WordOverlapSparseEncoder().encode([query], "query").row(0)


async def asked(
    snapshot: Snapshot,
    query: str,
    *stages: Stage,
    nets: Direct | None = None,
    documents: Collection[int] | None = None,
    seconds: float = math.inf,
) -> Outcome:
    """What a pipeline finds, by default everywhere; `documents` are those that a filter leaves."""
    workers = Workers(1)
    allowed = tuple(_mask(part, documents) for part in snapshot.parts)
    deadline = time.monotonic() + seconds
    search = Search(query, snapshot, allowed, deadline, cast(Nets, nets or Direct()), workers)
    try:
        return await run(stages, search)
    finally:
        workers.close()


def _mask(part: Part, documents: Collection[int] | None) -> NDArray[np.bool_] | None:
    if documents is None:
        return part.alive
    store = part.segment.store
    wanted = np.array([int(name) in documents for name in store.ids()])[store.document_of_row]
    return wanted if part.alive is None else wanted & part.alive
