"""Searches whose answer may be there already.

An answer is kept under all that it depends on: this program, the bytes of the manifest (which name every file
by its checksum, so a collection that was dropped and made again is another), the stages with every default
filled in, what the request asks to be shown, and the nets that the stages may ask. The time that it may take
is not among these: an answer that was worked out in full does not depend on it, and no other is kept.

Equal questions that come together are each worked out: they may have different times, and one that goes away
must not take the others' answer with it. Nets batch them anyway.
"""

import time

import orjson

from service.cache import Cache, Key, key_of, recall
from service.engine import Engine
from service.nets import Nets
from service.schema.search import SearchRequest, SearchResponse
from service.snapshot import Snapshot
from service.stages import Pipeline


class Answers:
    """Searches through the caches: `engine` asks `nets`, which look for encodings, and `cache` has answers.

    `plain` is the same engine without any cache.
    """

    def __init__(self, engine: Engine, nets: Nets, cache: Cache | None, plain: Engine) -> None:
        self._engine, self._nets, self._cache, self._plain = engine, nets, cache, plain

    async def search(
        self, snapshot: Snapshot, request: SearchRequest, *, fresh: bool = False
    ) -> SearchResponse:
        """As `Engine.search` does; if `fresh`, by the engine alone: nothing is looked for, nothing kept."""
        if fresh:
            return await self._plain.search(snapshot, request)
        if self._cache is None:
            return await self._engine.search(snapshot, request)
        return await self._from(self._cache, snapshot, request)

    async def _from(self, cache: Cache, snapshot: Snapshot, request: SearchRequest) -> SearchResponse:
        began = time.perf_counter()
        stages = self._engine.plan(snapshot.schema, request)
        key = self._key(snapshot, stages, request)
        known: SearchResponse | None = None if key is None else await recall(cache, key, orjson.loads)
        if known is not None:
            return {**known, "cached": True, "took_ms": round((time.perf_counter() - began) * 1000, 3)}
        answer = await self._engine.answer(snapshot, stages, request, began)
        key = key or self._key(snapshot, stages, request)  # the first to ask had its nets loaded
        if key is not None and not answer["degraded"]:
            cache.put(key, orjson.dumps(answer, option=orjson.OPT_SERIALIZE_NUMPY))
        return answer

    def _key(self, snapshot: Snapshot, stages: Pipeline, request: SearchRequest) -> Key | None:
        """None while a net that may be asked is not loaded: nobody knows what it would say."""
        nets = [self._nets.identity(*net) for net in self._engine.nets_of(snapshot.schema, stages)]
        if None in nets:
            return None
        asked = request.model_dump_json(exclude={"pipeline", "generation", "timeout_ms"})
        ran = [stage.model_dump_json() for stage in stages]
        left_out = sorted(snapshot.damaged)  # what was answered with them may be of damaged bytes
        return key_of("answer", snapshot.digest, *left_out, asked, *ran, *map(str, nets))
