"""Calls in, batches out: who is next before a net, and which items share a forward. No tasks, no threads.

An item is what a forward takes several of: a text's token ids, or anything whose length is the number of
tokens that pass through the net for it.

Interactive calls go before bulk ones. While interactive calls keep coming, bulk work gets one batch in
`SHARE`, so it is slow then but never stuck, and no interactive call waits for two bulk batches in a row.
Within a lane who comes first is served first, so that nobody waits longer than what was there takes; but a
call of more items than a batch may have goes to the end after each, and others do not wait for all of it.
A batch is the item whose turn it is and waiting items of about its length.
"""

import asyncio
import time
from collections.abc import Iterator, Sized
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from opentelemetry.trace import Span

from models.packing import pack
from service.tracing import here

Priority = Literal["interactive", "bulk"]
Array = NDArray[Any]  # a row for each item: numbers, or objects
Lane = dict["Call", None]  # a set in order of turn

SHARE = 8
"""While both wait, one batch in so many is bulk."""

WINDOW = 4
"""Batches' worth of items that are sorted together: more would pad less, and let a turn wait longer."""


@dataclass(eq=False)
class Call:
    """Items that one caller waits for: those that no forward has taken yet, and the rows that came back."""

    priority: Priority
    deadline: float  # seconds of time.monotonic()
    waiting: dict[int, Sized]  # items by position
    result: asyncio.Future[Array]
    since: float = field(default_factory=time.monotonic)
    rows: Array | None = None
    span: Span = field(default_factory=here)  # what it is a part of, where that is traced

    def __post_init__(self) -> None:
        self.items = self.missing = len(self.waiting)
        self.tokens = self.left = sum(map(len, self.waiting.values()))  # of all items, and of those that wait

    def failed(self) -> bool:
        """A forward raised, or the batcher closed."""
        return self.result.done() and not self.result.cancelled() and self.result.exception() is not None

    def late(self) -> bool:
        """The deadline has passed."""
        return time.monotonic() >= self.deadline

    def gone(self) -> bool:
        """Nobody waits for the rest: answered, failed, cancelled or late."""
        return self.result.done() or self.late()

    def fail(self, error: Exception) -> None:
        """Raise `error` at the caller, if it is still there."""
        if not self.result.done():
            self.result.set_exception(error)

    def deliver(self, positions: list[int], rows: Array) -> None:
        """Put rows in their places; the last of them answer the caller."""
        if self.rows is None:
            self.rows = np.empty((self.items, *rows.shape[1:]), rows.dtype)
        self.rows[positions] = rows
        self.missing -= len(positions)
        if not self.missing and not self.result.done():
            self.result.set_result(self.rows)


@dataclass(frozen=True)
class Entry:
    """An item in a batch."""

    call: Call
    position: int
    item: Sized


class BatchQueue:
    """The calls that have an item waiting. A batch has at most `budget` padded tokens and `most` items.

    The budget may be changed at any time; a text that is longer travels alone.
    """

    def __init__(self, budget: int, most: int) -> None:
        self.items = 0
        self._tokens: dict[Priority, int] = {"interactive": 0, "bulk": 0}
        self._held: dict[Priority, int] = {"interactive": 0, "bulk": 0}
        self.budget = budget
        self._most = most
        self._lanes: dict[Priority, Lane] = {"interactive": {}, "bulk": {}}
        self._passed_over = 0  # batches since bulk work had its turn, while some waited

    def __iter__(self) -> Iterator[Call]:
        return chain(self._lanes["interactive"], self._lanes["bulk"])

    @property
    def tokens(self) -> int:
        """Tokens that wait."""
        return sum(self._tokens.values())

    @property
    def tokens_an_item(self) -> float:
        """How long the items that wait are on average; 0 if there are none."""
        return self.tokens / self.items if self.items else 0.0

    def tokens_of(self, priority: Priority) -> int:
        """Tokens that wait in a lane."""
        return self._tokens[priority]

    def held(self, priority: Priority) -> int:
        """Tokens of the calls of a lane, those of their items that have left it too.

        This is what bounds a lane: if only what waits counted, each call that is half done would let in
        another half, and large ones, which take turns, would take twice as long.
        """
        return self._held[priority]

    def passing(self, priority: Priority, tokens: float) -> float:
        """Tokens of a lane that will have left it before calls of so many `held` ones have; if in doubt more,
        as if all took turns.
        """
        passed, calls = 0, sorted((call.left, call.tokens) for call in self._lanes[priority])
        for number, (left, held) in enumerate(calls):
            tokens -= held
            if tokens <= 0:
                return passed + left * (len(calls) - number)
            passed += left
        return passed + tokens

    def add(self, call: Call) -> None:
        """Put a call at the end of its lane."""
        self._lanes[call.priority][call] = None
        self._tokens[call.priority] += call.left
        self._held[call.priority] += call.tokens
        self.items += len(call.waiting)

    def remove(self, call: Call) -> int:
        """Take a call out, if it is in; returns how many of its items were still waiting."""
        if call not in self._lanes[call.priority]:
            return 0
        del self._lanes[call.priority][call]
        self._tokens[call.priority] -= call.left
        self._held[call.priority] -= call.tokens
        self.items -= len(call.waiting)
        return len(call.waiting)

    def has(self, priority: Priority) -> bool:
        """Whether any call of this priority waits."""
        return bool(self._lanes[priority])

    def fills_a_batch(self, priority: Priority) -> bool:
        """Whether the next batch of this priority would not grow by waiting."""
        window = list(_window(self._lanes[priority], self.budget, self._most))
        return len(window) >= self._most or sum(len(entry.item) for entry in window) >= self.budget

    def take(self) -> list[Entry]:
        """The next batch, taken off the queue; empty if nothing waits."""
        lane = self._next_lane()
        window = list(_window(lane, WINDOW * self.budget, WINDOW * self._most))
        batches = pack([len(entry.item) for entry in window], self.budget, self._most)
        batch = [window[number] for number in next((batch for batch in batches if 0 in batch), [])]
        for entry in batch:
            del entry.call.waiting[entry.position]
            entry.call.left -= len(entry.item)
            self._tokens[entry.call.priority] -= len(entry.item)
        self.items -= len(batch)
        for call in {entry.call: None for entry in batch}:
            if not call.waiting:
                del lane[call]
                self._held[call.priority] -= call.tokens
            elif call.items > self._most:
                del lane[call]
                lane[call] = None
        return batch

    def _next_lane(self) -> Lane:
        interactive, bulk = self._lanes["interactive"], self._lanes["bulk"]
        if interactive and not (bulk and self._passed_over >= SHARE - 1):
            self._passed_over += bool(bulk)
            return interactive
        self._passed_over = 0
        return bulk


def _window(lane: Lane, tokens: int, items: int) -> Iterator[Entry]:
    """The items of a lane in order, until there are so many or they have so many tokens."""
    for call in lane:
        for position, item in call.waiting.items():
            yield Entry(call, position, item)
            tokens -= len(item)
            items -= 1
            if tokens <= 0 or items == 0:
                return
