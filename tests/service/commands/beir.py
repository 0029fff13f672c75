"""Collections in BEIR's layout, as small as a test wants them."""

import json
from collections.abc import Mapping
from pathlib import Path


def write_beir(
    folder: Path,
    corpus: Mapping[str, tuple[str, str]],
    queries: Mapping[str, str] | None = None,
    qrels: Mapping[str, Mapping[str, int]] | None = None,
) -> Path:
    """Write title and text by document id, and what is there of questions and judgments; gives `folder`."""
    folder.mkdir(parents=True)
    documents = [{"_id": key, "title": title, "text": text} for key, (title, text) in corpus.items()]
    _write(folder / "corpus.jsonl", documents)
    if queries is not None:
        _write(folder / "queries.jsonl", [{"_id": key, "text": text} for key, text in queries.items()])
    if qrels is not None:
        rows = [f"{query}\t{doc}\t{grade}" for query, of in qrels.items() for doc, grade in of.items()]
        (folder / "qrels.tsv").write_text("\n".join(["query-id\tcorpus-id\tscore", *rows, ""]))
    return folder


def _write(path: Path, records: list[dict[str, str]]) -> None:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
