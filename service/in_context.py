"""Reading in context for searches: a net behind its batcher, and what it keeps of documents that it has read.

A forward cannot be stopped, so how many documents there is time for is chosen before they are read, from
what tokens have cost lately. Documents that were not read before are read in chunks, in the order of the
candidates, and after each chunk the number is chosen anew: a wrong estimate costs candidates and not the
deadline. One chunk waits in the queue while the one before is in the net, no more, so a request that ends
leaves little behind it.
"""

import asyncio
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from models import Kind
from models.in_context.cache import CachedDocuments, Entry, KVCache, document_key
from models.in_context.items import (
    AloneItem,
    AskItem,
    Cut,
    DocumentItem,
    Item,
    KeyQuestion,
    Mode,
    Prompt,
    PromptItem,
    Question,
)
from models.in_context.met import keys_of, met
from models.in_context.net import InContextNet
from models.in_context.read_out import Drop, Reading
from models.in_context.states import States
from service.batch_queue import Array
from service.batcher import Batcher, Net
from service.errors import DeadlineError, EncoderError, InvalidError
from service.net_errors import as_stage_errors
from service.reading_costs import Costs, Lengths, Seconds
from service.workers import Workers

MARGIN = 1.25
"""How much longer than estimated everything may take and still end in time."""

AHEAD = 2
"""Chunks of a request that are in the net or wait for it."""

LOOKS = 4
"""How often at least a request that reads until its time is up chooses anew how many documents it reads."""

WARM_BYTES = 2**24
"""Memory for documents read at the start."""

LEAST = 2
"""Documents that are worth a question unless more are wanted: one alone has no order."""

CHUNK = 512
"""Tokens of documents that pass through a net on a CPU together: more of them hardly save time, and others
who ask the net wait for them. (SmolLM2-135M on one core reads documents of 100 tokens in 60 ms each, four
together, in 57 eight together and in 55 sixteen together.)
"""

Ids = Sequence[int]
Scores = NDArray[np.float32]


class Timed:
    """A net as a batcher wants it: items of a kind pass through it together, and what they take is measured.

    A document that two requests want at the same time is read once.
    """

    def __init__(self, net: InContextNet) -> None:
        self.costs = Costs()
        self._net = net

    def tokenize(self, texts: Sequence[str], kind: Kind) -> list[AloneItem]:
        """Questions for stored keys."""
        return [AloneItem(self._net.question(text, "keys")) for text in texts]

    def forward(self, items: Sequence[Item]) -> Array:
        """object[n], of each what its class says."""
        rows = np.empty(len(items), np.object_)
        for places in _alike(items):
            different: dict[Any, Item] = {_sameness(items[place]): items[place] for place in places}
            began = time.perf_counter()
            made = self._net.forward(list(different.values()))
            self.costs.measure(list(different.values()), time.perf_counter() - began)
            found = dict(zip(different, made, strict=True))
            for place in places:
                rows[place] = found[_sameness(items[place])]
        return rows


class Read(NamedTuple):
    """What a question's attention says of the first documents: a score for each, float32 [n], and of its
    tokens the parts that make it, float32 [t] each.
    """

    scores: Scores
    tokens: list[Scores]


class Held:
    """Documents that a request uses: none of them makes room for others before the request has ended.

    They are kept by worker threads, which may come back after the request was given up.
    """

    def __init__(self, cache: KVCache) -> None:
        self._cache = cache
        self._entries: list[Entry] = []
        self._open = True
        self._lock = threading.Lock()

    def find(self, keys: Sequence[bytes]) -> list[Entry | States | None]:
        """What was read before, None for the others."""
        found = self._cache.find(keys)
        self._hold([entry for entry in found if entry is not None])
        return list(found)

    def keep(self, keys: Sequence[bytes], read: Sequence[States]) -> list[Entry | States]:
        """Keep documents that were just read, as far as there is room, and give what stands for each.

        ValueError for what is not finite.
        """
        return [self._keep(key, states) for key, states in zip(keys, read, strict=True)]

    def close(self) -> None:
        """The request has ended."""
        with self._lock:
            self._open = False
        self._cache.release(self._entries)

    def _keep(self, key: bytes, states: States) -> Entry | States:
        kept = self._cache.put(key, states)
        if isinstance(kept, Entry):
            self._hold([kept])
        return kept

    def _hold(self, entries: list[Entry]) -> None:
        with self._lock:
            if self._open:
                self._entries.extend(entries)
                return
        self._cache.release(entries)


class Reranker:
    """A net that reads in context, for stages and endpoints. What goes wrong is raised as a StageError.

    Of the documents of a call the first are scored, as many as there is time for, and at least `least` of
    them, or all if there are fewer: DeadlineError where there is no time for these.
    """

    def __init__(
        self, net: InContextNet, costs: Costs, batcher: Batcher, workers: Workers, cache: KVCache, chunk: int
    ) -> None:
        self.net, self.costs, self.batcher, self.cache = net, costs, batcher, cache
        self.fingerprint = net.fingerprint
        self._workers = workers
        self._chunk = chunk

    async def key_question(self, query: str) -> KeyQuestion:
        """A question for stored keys, asked together with what others ask just now."""
        with as_stage_errors(self.net.name), _refusing(None):
            (asked,) = await self.batcher.encode([query])
        made: KeyQuestion = asked
        return made

    def tokens(self, documents: Sequence[tuple[str, str]]) -> list[Cut]:
        """Titles and texts as the net reads them; for worker threads."""
        return self.net.document_tokens(documents)

    def question(self, query: str, mode: Mode, drop: Drop | None = None) -> Question:
        """A question as the net reads it; for worker threads. InvalidError for a drop that it cannot do."""
        with _refusing(drop):
            return self.net.question(query, mode, drop=drop)

    def lost(self, query: str, mode: Mode) -> int:
        """How many tokens of a question are beyond the limit."""
        return self.question(query, mode).lost

    def room(self, query: str, documents: Sequence[Ids]) -> int:
        """How many of the first documents a prompt of mode `dense` has room for; for worker threads."""
        with _refusing(None):
            return self._room(self._prompt(query, "dense", [], None), _lengths(documents))

    def offsets(self, texts: Sequence[str]) -> list[NDArray[np.int64]]:
        """Character (start, end) of every token of each whole text: int64 [tokens, 2], nothing cut."""
        return self.net.offsets(texts)

    def pieces(self, ids: Ids) -> list[str]:
        """Tokens as a reader knows them, spaces included."""
        return self.net.pieces(ids)

    async def ask(
        self, query: str, documents: Sequence[Ids], drop: Drop | None, until: float, least: int = LEAST
    ) -> Read:
        """A question over the first documents, as many as can be read (those that were not) and asked over by
        then.

        InvalidError for a drop that the net cannot do.
        """
        question = await self._workers.run(self.question, query, "cached", drop)
        over = await self._read_by(len(question), documents, until, least)
        return await self._outcome(AskItem(question, over), until)

    async def meet(self, query: str, documents: Sequence[Ids], until: float, least: int = LEAST) -> Scores:
        """Scores of mode `keys` for documents whose keys are not stored: those of the first documents, as
        many as can be read by then.
        """
        question = await self._workers.run(self.question, query, "keys")
        (asked,) = await self._submit([AloneItem(question)], until)
        over = await self._read_by(len(question), documents, until, least)
        return await self._workers.run(self._met, asked, over)

    async def rank(
        self,
        query: str,
        mode: Mode,
        documents: Sequence[Ids],
        drop: Drop | None,
        until: float,
        least: int = LEAST,
    ) -> Read:
        """A whole prompt over the first documents, as many as there is time and room for.

        InvalidError for a drop that the net cannot do.
        """
        with _refusing(drop):
            empty = await self._workers.run(self._prompt, query, mode, [], drop)
            number = self._fitting(empty, _lengths(documents), until, least)
            prompt = await self._workers.run(self._prompt, query, mode, documents[:number], drop)
        return await self._outcome(PromptItem(prompt), until)

    async def warm(self) -> None:
        """Run every kind of forward twice: the first is slow, the second says what tokens cost.

        What is read then is not kept.
        """
        net, cache = self.net, kv_cache(self.net, WARM_BYTES)
        apart = Reranker(net, self.costs, self.batcher, self._workers, cache, self._chunk)
        text = "a document to read before there are any others "
        for each in ("first", "second"):
            self.costs.forget()
            documents = [cut.ids for cut in net.document_tokens([(each, text * n) for n in (6, 7, 8, 9)])]
            await apart.key_question(text)
            await apart.ask(text, documents, None, math.inf)
            for mode in self.costs.prompt:
                await apart.rank(text, mode, documents, None, math.inf)

    def _keys(self, documents: Sequence[Ids]) -> list[bytes]:
        return [document_key(self.fingerprint, ids) for ids in documents]

    def _met(self, asked: KeyQuestion, documents: CachedDocuments) -> Scores:
        keys = keys_of(documents, self.net.layer, self.net.instruction)
        return met(asked, keys, documents.lengths)

    def _prompt(self, query: str, mode: Mode, documents: Sequence[Ids], drop: Drop | None) -> Prompt:
        return self.net.prompt(query, documents, mode, drop=drop)

    def _fitting(self, empty: Prompt, lengths: Lengths, until: float, least: int) -> int:
        """How many of the first documents such a prompt has time for, and of mode `dense` room."""
        passes = 1 if empty.free_instruction is None else 2
        seconds = self.costs.of_prompts(empty.mode, len(empty), passes * lengths)
        number = _enough(seconds + self._waiting(), until)
        _check(number, len(lengths), least)
        if empty.mode != "dense":
            return number
        room = self._room(empty, lengths)
        if room < min(LEAST, len(lengths)):
            raise EncoderError(
                f"{self.net.name} sees {self.net.max_tokens} tokens, too few for two candidates"
            )
        return min(number, room)

    def _room(self, empty: Prompt, lengths: Lengths) -> int:
        """How many of the first documents the net sees in one text."""
        room = self.net.max_tokens - len(empty.instruction) - len(empty.question.block.ids)
        return int(np.searchsorted(np.cumsum(lengths), room, side="right"))

    async def _read_by(
        self, question: int, documents: Sequence[Ids], until: float, least: int
    ) -> CachedDocuments:
        """The first documents, as many as there is time for before a question of so many tokens."""
        held = Held(self.cache)
        try:
            sources = await self._sources(held, question, documents, until, least)
            return await self._workers.run(self.cache.documents, sources)
        finally:
            held.close()

    async def _sources(
        self, held: Held, question: int, documents: Sequence[Ids], until: float, least: int
    ) -> list[Entry | States]:
        """The first documents, as many as there is time for, read now or before."""
        keys = await self._workers.run(self._keys, documents)
        found, lengths = held.find(keys), _lengths(documents)
        number = self._time_for(question, found, lengths, until - self._waiting(), least)
        missing = deque(place for place, source in enumerate(found) if source is None)
        ahead: deque[tuple[list[int], asyncio.Task[list[Entry | States]]]] = deque()
        try:
            while True:
                while len(ahead) < AHEAD and missing and missing[0] < number:
                    chunk = _chunk(missing, number, lengths, self._tokens_of_a_chunk(until))
                    work = self._read(held, [keys[n] for n in chunk], [documents[n] for n in chunk], until)
                    ahead.append((chunk, asyncio.create_task(work)))
                if not ahead or ahead[0][0][0] >= number:
                    return [source for source in found[:number] if source is not None]
                chunk, task = ahead.popleft()
                for place, source in zip(chunk, await task, strict=True):
                    found[place] = source
                number = self._time_for(question, found, lengths, until, least)
        finally:
            await _cancelled([task for _, task in ahead])

    def _tokens_of_a_chunk(self, until: float) -> int:
        """As many as the net takes together; fewer where time is short, so as to see in time that it is."""
        soon = (until - time.monotonic()) / LOOKS
        rate = self.costs.document.seconds
        return self._chunk if soon >= self._chunk * rate else int(soon / rate)

    def _time_for(
        self,
        question: int,
        found: Sequence[Entry | States | None],
        lengths: Lengths,
        until: float,
        least: int,
    ) -> int:
        """How many of the first documents can be read, unless they were, and asked over by then."""
        missing = np.array([source is None for source in found])
        reading = np.cumsum(np.where(missing, lengths, 0)) * self.costs.document.seconds
        number = _enough(reading + self.costs.of_asking(question, lengths), until)
        _check(number, len(lengths), least)
        return number

    async def _read(
        self, held: Held, keys: Sequence[bytes], documents: Sequence[Ids], until: float
    ) -> list[Entry | States]:
        states = await self._submit([DocumentItem(list(ids)) for ids in documents], until)
        try:
            return await self._workers.run(held.keep, keys, list(states))
        except ValueError as error:
            raise EncoderError(f"encoder {self.net.name} failed: {error}") from error

    async def _outcome(self, item: Item, until: float) -> Read:
        (reading,) = await self._submit([item], until)
        made: Reading = reading
        return Read(made.scores.astype(np.float32), [each.astype(np.float32) for each in made.tokens])

    async def _submit(self, items: Sequence[Item], until: float) -> Array:
        with as_stage_errors(self.net.name):
            return await self.batcher.submit(items, deadline=until)

    def _waiting(self) -> float:
        """Seconds that what others wait for will take, or about as long."""
        return self.batcher.pending_tokens * self.costs.document.seconds


def reranker(
    net: InContextNet,
    make: Callable[[Net, int], Batcher],
    workers: Workers,
    cache: KVCache,
    batch_tokens: int,
) -> Reranker:
    """A net behind the batcher that `make` puts before it, told how many tokens a forward has at most.

    `cache` is for what it has read; `batch_tokens` more than a CPU is given at a time.
    """
    timed, chunk = Timed(net), min(CHUNK, batch_tokens) if net.device == "cpu" else batch_tokens
    return Reranker(net, timed.costs, make(timed, chunk), workers, cache, chunk)


def kv_cache(net: InContextNet, budget_bytes: int) -> KVCache:
    """A cache for what a net reads, after one forward of its instruction, which documents are like."""
    return KVCache(net.layer, net.kv_heads, net.head_dim, net.dtype, budget_bytes, net.instruction)


def _lengths(documents: Sequence[Ids]) -> Lengths:
    return np.array([len(ids) for ids in documents], np.int64)


def _enough(seconds: Seconds, until: float) -> int:
    """How many of these, each with what goes before it, end by then."""
    return int(np.searchsorted(MARGIN * seconds, until - time.monotonic(), side="right"))


def _check(number: int, wanted: int, least: int) -> None:
    needed = min(least, wanted)
    if number < needed:
        raise DeadlineError(f"there was time for {number} of {wanted} candidates, and {needed} are needed")


def _chunk(missing: deque[int], behind: int, lengths: Lengths, tokens: int) -> list[int]:
    """Take the first of these documents, and those after it, before `behind`, that make so many tokens."""
    chunk = [missing.popleft()]
    room = tokens - lengths[chunk[0]]
    while missing and missing[0] < behind and lengths[missing[0]] <= room:
        chunk.append(missing.popleft())
        room -= lengths[chunk[-1]]
    return chunk


def _alike(items: Sequence[Item]) -> Iterator[list[int]]:
    """Positions of items that pass through a net together: those of a class, prompts of a mode."""
    kinds: dict[Any, list[int]] = {}
    for place, item in enumerate(items):
        kind = (type(item), item.prompt.mode) if isinstance(item, PromptItem) else type(item)
        kinds.setdefault(kind, []).append(place)
    yield from kinds.values()


def _sameness(item: Item) -> Any:
    """What items have in common of which one need pass through the net."""
    return tuple(item.ids) if isinstance(item, DocumentItem) else id(item)


async def _cancelled(tasks: Sequence[asyncio.Task[Any]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


@contextmanager
def _refusing(drop: Drop | None) -> Iterator[None]:
    """What the net cannot do is a fault of the request that asks for early dropping, or of the read-out."""
    try:
        yield
    except ValueError as error:
        if drop is None:
            raise EncoderError(f"the model cannot be asked so: {error}") from error
        raise InvalidError(f"drop_layer and drop_keep cannot be done: {error}") from error
