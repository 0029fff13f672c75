"""Documents as they were accepted, and which passage is which part of which document.

Rows are passages; the rows of a document are neighbours. A document is kept as
its JSON, uncompressed, so that reading one is a slice of a mapped file; its
text is there once however many passages it has, and a passage is a span of
characters in it.
"""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from indexer.segment.arrays import Arrays, open_arrays, write_arrays
from indexer.segment.dictionary import Dictionary, write_dictionary


def write_store(
    path: Path,
    seqs: NDArray[np.int64],
    document_of_row: NDArray[np.uint32],
    spans: NDArray[np.uint32],
    documents: Sequence[bytes],
    ids: Sequence[str],
) -> None:
    """Write the documents of a segment.

    `seqs` [rows] ascend; `document_of_row` [rows] counts 0, 0, 1, 2, 2, … leaving out none;
    `spans` [rows, 2] are character offsets in the document's text; `documents` are JSON as
    accepted and `ids` their ids, distinct, both in document order.
    """
    _write(path, seqs, document_of_row, spans, [np.frombuffer(d, np.uint8) for d in documents], ids)


class Store:
    """Reader of a segment's documents. `rows` passages of `documents` documents."""

    def __init__(self, path: Path) -> None:
        arrays = open_arrays(path)
        self.seqs: NDArray[np.int64] = arrays["seq"]
        self.document_of_row: NDArray[np.uint32] = arrays["document_of_row"]
        self.spans: NDArray[np.uint32] = arrays["span"]
        self.first_row: NDArray[np.int64] = arrays["first_row"]
        self._offsets: NDArray[np.uint64] = arrays["offset"]
        self._json: NDArray[np.uint8] = arrays["json"]
        self._ids = Dictionary(arrays, "id")
        self.rows = len(self.seqs)
        self._first = int(self.seqs[0]) if self.rows else 0
        self._gapless = self.rows > 0 and int(self.seqs[-1]) - self._first + 1 == self.rows
        self.documents = len(self._ids)

    def rows_at(self, seqs: NDArray[np.int64]) -> NDArray[np.int64]:
        """Rows of passages that are all in here. A segment that nothing was merged out of has no gaps."""
        return seqs - self._first if self._gapless else np.searchsorted(self.seqs, seqs)

    def json(self, number: int) -> bytes:
        """A document's JSON as it was accepted."""
        begin, end = self._offsets[number : number + 2].tolist()
        return self._json[begin:end].tobytes()

    def document(self, number: int) -> dict[str, Any]:
        """A document: `id`, `title`, `text`, `metadata`."""
        document: dict[str, Any] = json.loads(self.json(number))
        return document

    def id(self, number: int) -> str:
        """A document's id, without reading the document."""
        return self._ids.string(number)

    def ids(self) -> list[str]:
        """The ids of all documents, in order."""
        return self._ids.strings()

    def find(self, ids: Iterable[str]) -> NDArray[np.int64]:
        """Document number of every id, -1 for the absent."""
        return self._ids.find(ids)

    def rows_of(self, number: int) -> range:
        """The rows of a document."""
        begin, end = self.first_row[number : number + 2].tolist()
        return range(begin, end)


def merge_store(path: Path, parts: Sequence[tuple[Store, NDArray[np.bool_]]]) -> None:
    """Write the kept rows of several stores in order; documents without a kept row are left out."""
    numbers: list[NDArray[np.uint32]] = []
    jsons: list[NDArray[np.uint8]] = []
    ids: list[str] = []
    for store, keep in parts:
        kept, rank = np.unique(store.document_of_row[keep], return_inverse=True)
        numbers.append((rank + len(ids)).astype(np.uint32))
        jsons += [store._json[store._offsets[n] : store._offsets[n + 1]] for n in kept]
        ids += [store.id(n) for n in kept.tolist()]
    seqs = np.concatenate([store.seqs[keep] for store, keep in parts])
    spans = np.concatenate([store.spans[keep] for store, keep in parts])
    _write(path, seqs, np.concatenate(numbers), spans, jsons, ids)


def _write(
    path: Path,
    seqs: NDArray[np.int64],
    document_of_row: NDArray[np.uint32],
    spans: NDArray[np.uint32],
    documents: Sequence[NDArray[np.uint8]],
    ids: Sequence[str],
) -> None:
    offsets = np.zeros(len(documents) + 1, np.uint64)
    np.cumsum([len(d) for d in documents], out=offsets[1:])
    arrays: Arrays = {
        "seq": np.asarray(seqs, np.int64),
        "document_of_row": np.asarray(document_of_row, np.uint32),
        "first_row": np.searchsorted(document_of_row, np.arange(len(documents) + 1)).astype(np.int64),
        "span": np.asarray(spans, np.uint32).reshape(-1, 2),
        "offset": offsets,
        "json": np.concatenate([*documents, np.empty(0, np.uint8)]),
    }
    write_arrays(path, arrays | write_dictionary(ids, "id"))
