"""Texts of a request to a model endpoint through an encoder: rows out, and how many tokens that took."""

import time
from collections.abc import Sequence, Sized
from typing import Any, NamedTuple, Protocol, cast

from numpy.typing import NDArray

from models import Kind
from service.batch_queue import Array
from service.errors import TooLongError
from service.net_errors import as_stage_errors
from service.nets import Running
from service.workers import Workers


class Reader(Protocol):
    """What is asked of an encoder beside its forward."""

    max_tokens: int

    def tokenize(self, texts: Sequence[str], kind: Kind) -> Sequence[Sized]:
        """Tokens of each text, cut to `max_tokens`."""
        ...

    def offsets(self, texts: Sequence[str]) -> list[NDArray[Any]]:
        """One row a piece of each whole text."""
        ...


class Encoded(NamedTuple):
    """What the net made of each text, in order, and the tokens that it read."""

    rows: Array
    tokens: int


class _Full(Exception):  # noqa: N818 - it says a state
    """Some texts fill the net's length, so that they may have been cut."""


async def encode(
    running: Running, workers: Workers, texts: Sequence[str], kind: Kind, until: float, *, whole: bool
) -> Encoded:
    """What the net makes of each text. TooLongError for a text that it would cut, if `whole` is asked for.

    StageErrors as `as_stage_errors` has them.
    """
    lengths: list[int] = []

    def look(items: Sequence[Sized]) -> None:
        lengths[:] = map(len, items)
        if checks and max(lengths) >= reader.max_tokens:
            raise _Full

    reader, checks = cast(Reader, running.net), whole
    with as_stage_errors(running.batcher.name):
        try:
            rows = await running.batcher.encode(texts, kind=kind, deadline=until, look=look)
        except _Full:
            await workers.run(refuse_cut, reader, texts, kind)
            checks = False
            rows = await running.batcher.encode(texts, kind=kind, deadline=until, look=look)
    return Encoded(rows, sum(lengths))


def refuse_cut(reader: Reader, texts: Sequence[str], kind: Kind) -> None:
    """TooLongError for the first text that is longer than the net reads; for worker threads."""
    around = len(reader.tokenize([""], kind)[0])
    for number, pieces in enumerate(reader.offsets(texts)):
        if (tokens := len(pieces) + around) > reader.max_tokens:
            raise TooLongError(
                f"text {number} has {tokens} tokens, and the model reads {reader.max_tokens}: "
                "shorten it, or ask for it to be cut"
            )


def cut(reader: Reader, texts: Sequence[str], most: int) -> list[str]:
    """Texts of at most `most` tokens each, special ones not counted; for worker threads."""
    return [
        text[: pieces[most - 1][1]] if len(pieces) > most else text
        for text, pieces in zip(texts, reader.offsets(texts), strict=True)
    ]


def deadline(timeout_ms: int) -> float:
    """When so many milliseconds from now will be over, on the monotonic clock."""
    return time.monotonic() + timeout_ms / 1000
