"""Texts of a request to a model endpoint through an encoder: rows out, and how many tokens that took."""

import time
from collections.abc import Sequence, Sized
from typing import Any, Literal, NamedTuple, Protocol, cast, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from models import Kind
from service.batch_queue import Array, Priority
from service.errors import FieldError, InvalidError, TooLongError, UnknownTokenError
from service.inputs import Inputs
from service.net_errors import as_stage_errors
from service.nets import Running
from service.together import together
from service.types import Scores
from service.workers import Workers

End = Literal["left", "right"]
"""Where a text that is too long loses tokens: at its beginning or at its end."""


class Fit(NamedTuple):
    """What becomes of texts that are too long: they are cut at an end, or refused where that is None.

    `most` bounds tokens below what the net reads, with those that it adds itself; such texts are cut.
    """

    end: End | None = None
    most: int | None = None


REFUSED = Fit()
CUT = Fit("right")


class Reader(Protocol):
    """What is asked of an encoder beside its forward."""

    name: str
    max_tokens: int

    def tokenize(self, texts: Sequence[str], kind: Kind) -> Sequence[Sized]:
        """Tokens of each text, cut to `max_tokens`."""
        ...

    def offsets(self, texts: Sequence[str]) -> list[NDArray[Any]]:
        """One row a piece of each whole text."""
        ...


@runtime_checkable
class Roomy(Protocol):
    """A reader that may read less of a question than of a passage."""

    def room(self, kind: Kind) -> int:
        """How many of a text's own pieces are read."""
        ...


class Decoder(Reader, Protocol):
    """An encoder that texts may come to as token ids."""

    def text(self, ids: Sequence[int]) -> str:
        """What the ids say. ValueError for ids outside of the vocabulary."""
        ...


class Encoded(NamedTuple):
    """What the net made of each text, in order, and the tokens that it read."""

    rows: Array
    tokens: int


class _Full(Exception):  # noqa: N818 - it says a state
    """Some texts fill the net's length, so that they may have been cut."""


async def read(
    running: Running, workers: Workers, inputs: Inputs, kind: Kind, fit: Fit, until: float
) -> Encoded:
    """What the net makes of each text or list of token ids, made to fit first.

    UnknownTokenError, TooLongError, InvalidError for what cannot be; StageErrors as of `encode`.
    """
    net = cast(Decoder, running.net)
    if fit.most is not None and fit.most > net.max_tokens:
        raise InvalidError(f"{fit.most} tokens are more than {net.name} reads, which is {net.max_tokens}")
    if any(not isinstance(each, str) for each in inputs):
        inputs = await workers.run(_texts, net, inputs)
    texts = cast(Sequence[str], inputs)
    if fit.most is not None or fit.end == "left":
        texts = await workers.run(fitted, net, texts, kind, fit.most, fit.end or "right")
    return await encode(running, workers, texts, kind, until, whole=fit == REFUSED)


def _texts(decoder: Decoder, inputs: Inputs) -> list[str]:
    return [
        each if isinstance(each, str) else _text(decoder, number, cast(Sequence[int], each))
        for number, each in enumerate(inputs)
    ]


def _text(decoder: Decoder, number: int, ids: Sequence[int]) -> str:
    try:
        return decoder.text(ids)
    except ValueError as error:
        told = FieldError(index=number, field="text", code=UnknownTokenError.code, detail=str(error))
        raise UnknownTokenError(str(error), errors=[told]) from error


async def encode(
    running: Running, workers: Workers, texts: Sequence[str], kind: Kind, until: float, *, whole: bool
) -> Encoded:
    """What the net makes of each text. TooLongError for a text that it would cut, if `whole` is asked for.

    StageErrors as `as_stage_errors` has them.
    """
    lengths: list[int] = []

    def look(items: Sequence[Sized]) -> None:
        lengths[:] = map(len, items)
        if checks and max(lengths) >= fewest:
            raise _Full

    reader, checks = cast(Reader, running.net), whole
    fewest = fewest_of_cut(reader, kind)
    with as_stage_errors(running.batcher.name):
        try:
            rows = await running.batcher.encode(
                texts, kind=kind, priority=priority(texts), deadline=until, look=look
            )
        except _Full:
            await workers.run(refuse_cut, reader, texts, kind)
            checks = False
            rows = await running.batcher.encode(
                texts, kind=kind, priority=priority(texts), deadline=until, look=look
            )
    return Encoded(rows, sum(lengths))


async def encode_both(
    running: Running, workers: Workers, query: str, documents: Sequence[str], until: float, *, whole: bool
) -> tuple[Encoded, Encoded]:
    """What the net makes of a question and of texts, at the same time; otherwise as `encode`."""
    async with together() as group:
        asked = group.create_task(encode(running, workers, [query], "query", until, whole=whole))
        found = group.create_task(encode(running, workers, documents, "document", until, whole=whole))
    return asked.result(), found.result()


def priority(texts: Sequence[object]) -> Priority:
    """Several texts give way: what somebody asks must not wait behind a corpus."""
    return "bulk" if len(texts) > 1 else "interactive"


def fewest_of_cut(reader: Reader, kind: Kind) -> int:
    """How many tokens a text that was cut has at least, those of its own and others."""
    return reader.room(kind) if isinstance(reader, Roomy) else reader.max_tokens


def refuse_cut(reader: Reader, texts: Sequence[str], kind: Kind) -> None:
    """TooLongError for the first text that is longer than the net reads; for worker threads."""
    room = _room(reader, kind)
    for number, pieces in enumerate(reader.offsets(texts)):
        if len(pieces) > room:
            alone = kind == "query" and len(texts) == 1
            raise TooLongError(
                "question" if alone else "text",
                None if alone else number,
                f"has {len(pieces)} tokens, and the model reads {room} of them: shorten it, or ask for it to "
                "be cut",
            )


def _room(reader: Reader, kind: Kind) -> int:
    """How many of a text's own pieces are read."""
    if isinstance(reader, Roomy):
        return reader.room(kind)
    return reader.max_tokens - _around(reader, kind)


def _around(reader: Reader, kind: Kind) -> int:
    """How many tokens the net adds to a text of its own."""
    # An empty text would not do: it never has no tokens, and after a prompt's last space it may have another.
    return len(reader.tokenize(["a"], kind)[0]) - len(reader.offsets(["a"])[0])


def fitted(reader: Reader, texts: Sequence[str], kind: Kind, most: int | None, end: End) -> list[str]:
    """Texts that the net reads whole; for worker threads.

    They have at most `most` tokens each, if that is given, with those that the net itself adds. InvalidError
    where these leave no token for a text.
    """
    room = _room(reader, kind)
    if most is None:
        return cut(reader, texts, room, end)
    around = _around(reader, kind)
    if most <= around:
        raise InvalidError(f"{most} tokens are too few: {around} of them are the model's own")
    return cut(reader, texts, min(most - around, room), end)


def cut(reader: Reader, texts: Sequence[str], most: int, end: End = "right") -> list[str]:
    """Texts of at most `most` tokens each, special ones not counted; for worker threads."""
    return [
        _cut(reader, text, pieces, most, end) if len(pieces) > most else text
        for text, pieces in zip(texts, reader.offsets(texts), strict=True)
    ]


def _cut(reader: Reader, text: str, pieces: NDArray[Any], most: int, end: End) -> str:
    while len(pieces) > most:  # again where what is left of a word has more pieces than it had within it
        if end == "right":
            text = text[: min(pieces[most - 1][1], len(text) - 1)]
        else:
            text = text[max(pieces[-most][0], 1) :]
        (pieces,) = reader.offsets([text])
    return text


def narrowed(vectors: Scores, dimensions: int, *, unit: bool) -> Scores:
    """The first numbers of each vector, at unit length if that is asked: float32 [n, dimensions]."""
    kept: Scores = vectors[:, :dimensions]
    if not unit:
        return kept
    lengths = np.linalg.norm(kept, axis=1, keepdims=True)
    scaled: Scores = (kept / np.maximum(lengths, np.finfo(np.float32).tiny)).astype(np.float32)
    return scaled


def refuse_dimensions(name: str, dim: int, wanted: int) -> None:
    """InvalidError for more numbers than the vectors of the net `name` have."""
    if wanted > dim:
        sentence = f"dimensions is {wanted}, and the vectors of {name} have {dim} numbers"
        error = FieldError(index=None, field="dimensions", code="too_many_dimensions", detail=sentence)
        raise InvalidError(sentence, errors=[error])


def deadline(timeout_ms: int) -> float:
    """When so many milliseconds from now will be over, on the monotonic clock."""
    return time.monotonic() + timeout_ms / 1000
