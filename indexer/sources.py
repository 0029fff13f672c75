"""Files to documents: BEIR folders, JSON lines, and folders of plain text or Markdown.

Everything is read lazily, so a corpus larger than memory streams through; the price is that a bad record is
found only when its turn comes. The error names its file and line, and what was read before it stands.
"""

import gzip
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import orjson
from pydantic import ValidationError

from indexer.document import Document

LINES = (".jsonl", ".ndjson", ".jsonl.gz", ".ndjson.gz")
TEXTS = (".txt", ".md")
_HEADING = re.compile(r"^#{1,6}\s+(.+?)\s*#*\s*$")


class SourceError(ValueError):
    """A source that cannot be read; the message names the file and, where there is one, the line."""


def read_documents(source: Path) -> Iterator[Document]:
    """Yield the documents of a BEIR folder, a JSON-lines file, or text files in the order of their paths.

    Raises:
        SourceError: nothing readable is there, or a record is not a document.

    """
    if lines := _lines_file(source):
        return _from_lines(lines)
    root = source if source.is_dir() else source.parent
    return (_from_text(path, root) for path in _text_files(source))


def count_documents(source: Path) -> int:
    """Return how many `read_documents` will yield, without parsing them (a progress bar's total)."""
    if lines := _lines_file(source):
        return sum(1 for _ in _lines(lines))
    return len(_text_files(source))


def read_queries(folder: Path) -> dict[str, str]:
    """Query id -> text of a BEIR folder, in file order."""
    path = _required(folder, "queries")
    queries = {}
    for number, line in _lines(path):
        record = _parse(line, path, number)
        try:
            queries[str(record["_id"])] = str(record["text"])
        except KeyError as error:
            raise SourceError(f"{path}:{number}: a query needs the field {error}") from error
    return queries


def has_queries(folder: Path) -> bool:
    """Whether a folder has queries."""
    return _named(folder, "queries") is not None


def has_qrels(folder: Path, splits: Sequence[str] = ("test",)) -> bool:
    """Whether a folder has judgments that `read_qrels` reads."""
    return _qrels_path(folder, splits) is not None


def read_qrels(folder: Path, splits: Sequence[str] = ("test",)) -> dict[str, dict[str, int]]:
    """Query id -> document id -> grade, from `qrels.tsv` or the first of BEIR's `qrels/SPLIT.tsv`."""
    path = _qrels_path(folder, splits)
    if path is None:
        ways = " or ".join(["qrels.tsv", *(f"qrels/{split}.tsv" for split in splits)])
        raise SourceError(f"{folder} has no judgments: expected {ways}")
    qrels: dict[str, dict[str, int]] = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        fields = line.split("\t")
        if number == 1 and fields[-1] == "score":
            continue
        try:
            query, document, grade = fields
            qrels.setdefault(query, {})[document] = int(grade)
        except ValueError as error:
            raise SourceError(
                f"{path}:{number}: expected query, document and a whole-number grade"
            ) from error
    return qrels


def _qrels_path(folder: Path, splits: Sequence[str]) -> Path | None:
    ways = (folder / "qrels.tsv", *(folder / "qrels" / f"{split}.tsv" for split in splits))
    return next((path for path in ways if path.is_file()), None)


def _lines_file(source: Path) -> Path | None:
    """Return the JSON-lines file that `source` is or, for a BEIR folder, has."""
    if source.is_dir():
        return _named(source, "corpus")
    return source if source.name.endswith(LINES) and source.is_file() else None


def _named(folder: Path, stem: str) -> Path | None:
    return next((path for suffix in LINES if (path := folder / (stem + suffix)).is_file()), None)


def _required(folder: Path, stem: str) -> Path:
    if path := _named(folder, stem):
        return path
    raise SourceError(f"{folder} has no {stem}: expected {stem}.jsonl or {stem}.jsonl.gz")


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """Yield (line number from 1, line) of every line that is not blank; `.gz` is unpacked."""
    with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
        try:
            for number, line in enumerate(file, start=1):
                if line.strip():
                    yield number, line
        except (EOFError, gzip.BadGzipFile) as error:
            raise SourceError(f"{path}: not a whole gzip file ({error})") from error


def _from_lines(path: Path) -> Iterator[Document]:
    for number, line in _lines(path):
        yield _document(_parse(line, path, number), f"{path}:{number}")


def _document(record: dict[str, Any], where: str) -> Document:
    try:
        return Document.model_validate(record)
    except ValidationError as error:
        raise SourceError(f"{where}: {_first(error)}") from error


def _parse(line: bytes, path: Path, number: int) -> dict[str, Any]:
    try:
        record = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        raise SourceError(f"{path}:{number}: not JSON ({error})") from error
    if not isinstance(record, dict):
        raise SourceError(f"{path}:{number}: expected a JSON object, found {type(record).__name__}")
    return record


def _first(error: ValidationError) -> str:
    """Return the first thing wrong with a record, as a clause."""
    detail = error.errors(include_url=False)[0]
    where = ".".join(str(part) for part in detail["loc"])
    return f"{where}: {detail['msg']}" if where else detail["msg"]


def _text_files(source: Path) -> list[Path]:
    if not source.exists():
        raise SourceError(f"{source} does not exist")
    files = [source] if source.is_file() else sorted(p for p in source.rglob("*") if p.is_file())
    texts = [path for path in files if path.suffix in TEXTS]
    if not texts:
        raise SourceError(
            f"{source} holds nothing to index: expected a BEIR folder (corpus.jsonl), "
            f"JSON lines ({', '.join(LINES)}) or text files ({', '.join(TEXTS)})"
        )
    return texts


def _from_text(path: Path, root: Path) -> Document:
    """Make a document of a text file: id = relative path, title = its first heading or its name."""
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise SourceError(f"{path}: not UTF-8 text (byte {error.start})") from error
    heading = next((m[1] for line in text.splitlines() if (m := _HEADING.match(line))), None)
    relative = path.relative_to(root).as_posix()
    record = {"id": relative, "title": heading or path.stem, "text": text, "metadata": {"path": relative}}
    return _document(record, str(path))
