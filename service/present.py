"""From passage numbers to what a person reads: ids, titles, texts, highlights and explanations.

Runs in one worker thread for a whole page, since it reads mapped files. Only what is shown is read.
"""

import math
from collections.abc import Iterator, Sequence

from service.schema import Hit, SearchRequest
from service.stages import AnyStage, Bm25, Fuse
from service.types import Hits, Search


def present(search: Search, stages: Sequence[AnyStage], hits: Hits, request: SearchRequest) -> list[Hit]:
    """The page's hits in order, with the fields that were asked for."""
    parts, rows = search.snapshot.locate(hits.seqs)
    shown: list[Hit] = []
    for place, (part, row) in enumerate(zip(parts.tolist(), rows.tolist(), strict=True)):
        hit: Hit = {
            "id": "",
            "score": float(hits.scores[place]),
            "scores": {name: float(s[place]) for name, s in hits.raw.items() if not math.isnan(s[place])},
        }
        _fill(hit, search, part, row, request)
        shown.append(hit)
    if request.explain:
        _explain(shown, search, stages, hits)
    return shown


def _fill(hit: Hit, search: Search, part: int, row: int, request: SearchRequest) -> None:
    store = search.snapshot.parts[part].segment.store
    number = int(store.document_of_row[row])
    if not request.fields and not request.highlight:
        hit["id"] = store.id(number)
        return
    document = store.document(number)
    hit["id"] = document["id"]
    start, end = store.spans[row].tolist()
    passage = document["text"][start:end]
    if "passage" in request.fields:
        hit["passage"] = {"start": start, "end": end, "text": passage}
    if "title" in request.fields:
        hit["title"] = document["title"]
    if "text" in request.fields:
        hit["text"] = document["text"]
    if "metadata" in request.fields:
        hit["metadata"] = document["metadata"]
    if request.highlight:
        hit["highlights"] = _highlights(search, passage)


def _highlights(search: Search, passage: str) -> list[str]:
    index = search.snapshot.full_text()
    return [] if index is None else index.highlights(search.query, passage)


def _explain(shown: list[Hit], search: Search, stages: Sequence[AnyStage], hits: Hits) -> None:
    stage = next(_lexical(stages), None)
    if stage is None:
        return
    for hit, terms in zip(shown, stage.explain(search, hits.seqs), strict=True):
        hit["explanation"] = {stage.stage: terms}


def _lexical(stages: Sequence[AnyStage]) -> Iterator[Bm25]:
    for stage in stages:
        if isinstance(stage, Bm25):
            yield stage
        elif isinstance(stage, Fuse):
            for pipeline in stage.inputs:
                yield from _lexical(pipeline)
