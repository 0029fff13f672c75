"""Texts of a request to a model endpoint through an encoder: rows out, and how many tokens that took."""

import time
from collections.abc import Sequence, Sized
from typing import Any, Literal, NamedTuple, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from models import Kind
from service.batch_queue import Array, Priority
from service.errors import FieldError, InvalidError, TooLongError, UnknownTokenError
from service.inputs import Inputs
from service.net_errors import as_stage_errors
from service.nets import Running
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
        most = net.max_tokens if fit.most is None else fit.most
        texts = await workers.run(fitted, net, texts, kind, most, fit.end or "right")
    return await encode(running, workers, texts, kind, until, whole=fit == REFUSED)


def _texts(decoder: Decoder, inputs: Inputs) -> list[str]:
    try:
        return [each if isinstance(each, str) else decoder.text(each) for each in inputs]
    except ValueError as error:
        raise UnknownTokenError(str(error)) from error


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


def priority(texts: Sequence[object]) -> Priority:
    """Several texts give way: what somebody asks must not wait behind a corpus."""
    return "bulk" if len(texts) > 1 else "interactive"


def refuse_cut(reader: Reader, texts: Sequence[str], kind: Kind) -> None:
    """TooLongError for the first text that is longer than the net reads; for worker threads."""
    around = len(reader.tokenize([""], kind)[0])
    for number, pieces in enumerate(reader.offsets(texts)):
        if (tokens := len(pieces) + around) > reader.max_tokens:
            raise TooLongError(
                f"text {number} has {tokens} tokens, and the model reads {reader.max_tokens}: "
                "shorten it, or ask for it to be cut"
            )


def fitted(reader: Reader, texts: Sequence[str], kind: Kind, most: int, end: End) -> list[str]:
    """Texts of at most `most` tokens each, with those that the net itself adds; for worker threads.

    InvalidError where these leave no token for a text.
    """
    around = len(reader.tokenize([""], kind)[0])
    if most <= around:
        raise InvalidError(f"{most} tokens are too few: {around} of them are the model's own")
    return cut(reader, texts, most - around, end)


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
