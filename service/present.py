"""From passage numbers to what a person reads: ids, titles, texts, highlights and explanations.

Runs in one worker thread for a whole page, since it reads mapped files. Only what is shown is read.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial

from indexer.segment.highlight import highlights
from indexer.segment.store import Store
from service.schema.search import Hit, SearchRequest, Shown
from service.stages import AnyStage, Bm25, Cross, Fuse, InContext, Late, Sparse
from service.types import Attended, Hits, Match, ReadWindow, Search, Term

Explaining = Bm25 | Sparse | Late | Cross | InContext
Explanation = list[Term] | list[Match] | list[Attended] | list[ReadWindow]
Marker = Callable[[str], list[str]]  # a passage's text to fragments with the question's words marked


def present(search: Search, stages: Sequence[AnyStage], hits: Hits, request: SearchRequest) -> list[Hit]:
    """The page's hits in order, with the fields that were asked for."""
    explaining = list(_explaining(stages))
    marker = _marker(search, explaining) if request.highlight else None
    shown = _hits(search, hits, request.fields, marker)
    if request.explain:
        _explain(search, explaining, hits, shown)
    return shown


def _explain(search: Search, stages: Sequence[Explaining], hits: Hits, shown: Sequence[Hit]) -> None:
    """Add to every hit what terms or tokens gave to it, by the first stage of each kind."""
    for stage in {stage.label: stage for stage in reversed(stages)}.values():
        explained: Sequence[Explanation] = stage.explain(search, hits.seqs)
        for hit, found in zip(shown, explained, strict=True):
            hit.setdefault("explanation", {})[stage.label] = found


def _hits(search: Search, hits: Hits, fields: Sequence[Shown], marker: Marker | None) -> list[Hit]:
    parts, rows = (each.tolist() for each in search.snapshot.locate(hits.seqs))
    scores = hits.scores.tolist()
    raw = {name: values.tolist() for name, values in hits.raw.items()}
    shown = []
    for place, (part, row) in enumerate(zip(parts, rows, strict=True)):
        hit = _hit(search.snapshot.parts[part].segment.store, row, fields, marker)
        hit["score"] = scores[place]
        hit["scores"] = {name: s[place] for name, s in raw.items() if not math.isnan(s[place])}
        shown.append(hit)
    return shown


def _hit(store: Store, row: int, fields: Sequence[Shown], marker: Marker | None) -> Hit:
    number = int(store.document_of_row[row])
    if not fields and marker is None:
        return {"id": store.id(number), "score": 0.0, "scores": {}}
    document = store.document(number)
    hit: Hit = {"id": document["id"], "score": 0.0, "scores": {}}
    start, end = store.spans[row].tolist()
    passage = document["text"][start:end]
    if "passage" in fields:
        hit["passage"] = {"start": start, "end": end, "text": passage}
    if "title" in fields:
        hit["title"] = document["title"]
    if "text" in fields:
        hit["text"] = document["text"]
    if "metadata" in fields:
        hit["metadata"] = document["metadata"]
    if marker is not None:
        hit["highlights"] = marker(passage)
    return hit


def _marker(search: Search, stages: Sequence[Explaining]) -> Marker:
    """How a passage is highlighted: by the question's terms, or by what full syntax asks for."""
    snapshot = search.snapshot
    lexical = next((stage for stage in stages if isinstance(stage, Bm25)), None)
    if lexical is not None and lexical.query_syntax == "full":
        index = snapshot.fulltext()
        if index is not None:
            return partial(index.highlights, search.query)
    return partial(highlights, snapshot.analyzer, frozenset(snapshot.analyzer.analyze(search.query)))


def _explaining(stages: Sequence[AnyStage]) -> Iterator[Explaining]:
    """The stages of a pipeline that match terms or tokens, those inside of fusion included."""
    for stage in stages:
        if isinstance(stage, Explaining):
            yield stage
        elif isinstance(stage, Fuse):
            for pipeline in stage.inputs:
                yield from _explaining(pipeline)
