"""Questions without a net: the distinct word pieces of a question, each with the weight a table gives it.

Inference-free retrieval (Geng et al. 2024, arXiv 2411.04403): passages are expanded by a net when they are
indexed, and a question costs as much as tokenising it. Word pieces and table must belong to the same
tokeniser: vectors of another one still give plausible scores, so a table that holds a foreign piece is
refused.

A folder of weights may hold such a table: `idf.safetensors`, whose one tensor `idf` is float32 [vocabulary],
or `idf.json`, an object {piece: weight}.
"""

import gzip
import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file

from models.csr import Csr

TENSORS, OBJECT = "idf.safetensors", "idf.json"

MISSING = 1.0
"""The weight of a piece that the table lacks."""


def idf_query(pieces: NDArray[np.int32], idf: NDArray[np.float32]) -> Csr:
    """One row: `max(0, idf_j)` for each distinct piece, once however often it occurs.

    `pieces` without special tokens, as `SparseEncoder.pieces` gives them; `idf` float32 [vocabulary].
    """
    terms = np.unique(pieces).astype(np.int32)
    weights = idf[terms].astype(np.float32)
    terms, weights = terms[weights > 0], weights[weights > 0]
    return Csr(np.array([0, len(terms)], np.int64), terms, weights)


def read_idf(path: Path, ids: Mapping[str, int], vocabulary: int) -> NDArray[np.float32]:
    """The table in a JSON object {piece: weight}, gzipped if `path` ends in .gz: float32 [vocabulary].

    `ids` numbers the pieces of the tokeniser (`SparseEncoder.ids`). Pieces that the file lacks weigh 1.0,
    weights below zero become zero. Raises ValueError that says what is wrong, or OSError.
    """
    table = _table(path)
    foreign = [piece for piece in table if piece not in ids]
    if foreign:
        raise ValueError(
            f"{path} weighs {foreign[0]!r} ({len(foreign)} such), which is no piece of this encoder's "
            "vocabulary: the table belongs to another tokeniser"
        )
    weights = np.full(vocabulary, MISSING, np.float32)
    weights[[ids[piece] for piece in table]] = list(table.values())
    return np.maximum(weights, 0.0)


def own_idf(folder: Path, ids: Mapping[str, int], vocabulary: int) -> NDArray[np.float32] | None:
    """The table in a folder of weights, float32 [vocabulary] and none below zero; None if it has none.

    `ids` as for `read_idf`. Raises ValueError that says what is wrong, both files being there included.
    """
    tensors, pieces = folder / TENSORS, folder / OBJECT
    if tensors.is_file() and pieces.is_file():
        raise ValueError(f"{folder} has {TENSORS} and {OBJECT}: leave the one that weighs questions")
    if pieces.is_file():
        return read_idf(pieces, ids, vocabulary)
    return _tensor(tensors, vocabulary) if tensors.is_file() else None


def _tensor(file: Path, vocabulary: int) -> NDArray[np.float32]:
    found: dict[str, NDArray[np.float32]] = load_file(file)
    told = {name: (str(each.dtype), *each.shape) for name, each in found.items()}
    wanted = {"idf": ("float32", vocabulary)}
    if told != wanted or not np.isfinite(found["idf"]).all():
        raise ValueError(f"{file} should hold finite numbers as {wanted}, but holds {told}")
    return np.maximum(found["idf"], np.float32(0))


def _table(path: Path) -> dict[str, float]:
    stored = path.read_bytes()
    try:
        table = json.loads(gzip.decompress(stored) if path.suffix == ".gz" else stored)
    except (ValueError, EOFError, gzip.BadGzipFile) as error:
        raise ValueError(f"{path} is no JSON object of word pieces and weights: {error}") from None
    if not isinstance(table, dict) or not table or not all(map(_is_weight, table.values())):
        raise ValueError(f"{path} is no JSON object of word pieces and finite weights")
    return table


def _is_weight(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and bool(np.isfinite(value))
