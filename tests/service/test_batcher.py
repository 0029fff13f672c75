import asyncio
import logging
import threading
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

import numpy as np
import pytest
from numpy.typing import NDArray

from models import Kind
from service.batch_queue import Priority
from service.batcher import Batcher, Closed, Dropped, Net, NetFailed, Observer, Overloaded
from service.budgets import Budget
from service.workers import Workers
from tests.nets import CountingNet, WordOverlapEncoder


class Notebook(Observer):
    """Writes down what it is told."""

    def __init__(self) -> None:
        self.waits: list[Priority] = []
        self.forwards: list[tuple[int, int]] = []
        self.drops: list[tuple[Dropped, int]] = []
        self.padding = self.halvings = 0

    def waited(self, priority: Priority, seconds: float) -> None:
        self.waits.append(priority)

    def ran(self, texts: int, tokens: int, padding: int, seconds: float) -> None:
        self.forwards.append((texts, tokens))
        self.padding += padding

    def halved(self) -> None:
        self.halvings += 1

    def dropped(self, reason: Dropped, texts: int) -> None:
        self.drops.append((reason, texts))


class Scene:
    """A batcher before a net whose forwards a test can hold."""

    def __init__(self, batcher: Batcher, net: CountingNet, notes: Notebook) -> None:
        self.batcher, self.net, self.notes = batcher, net, notes
        self.encode = batcher.encode

    async def occupy(self) -> "asyncio.Task[object]":
        """Hold a forward of one text until the gate opens."""
        self.net.gate.clear()
        task = asyncio.create_task(self.encode(["occupied"]))
        await asyncio.to_thread(self.net.entered.acquire)
        return task

    async def queued(self, tokens: int) -> None:
        """Wait until so many tokens are queued."""
        async with asyncio.timeout(10):
            while self.batcher.queued_tokens != tokens:
                await asyncio.sleep(0.001)

    def words(self) -> list[list[int]]:
        """Numbers of words of the texts of each forward."""
        return [[len(ids) - 2 for ids in batch] for batch in self.net.batches]


@asynccontextmanager
async def scene(budget: int = 1000, most: int = 64, limit: int = 1000) -> AsyncIterator[Scene]:
    net, notes, workers = CountingNet(), Notebook(), Workers()
    batcher = Batcher(net, workers, budget=budget, most=most, limit=limit, name="counting", observer=notes)
    await batcher.start()
    try:
        yield Scene(batcher, net, notes)
    finally:
        net.gate.set()
        await batcher.close()
        workers.close()


async def test_a_lone_call_is_answered() -> None:
    async with scene() as here:
        assert (await here.encode(["a b", "c"])).shape == (2, 64)
        assert here.notes.forwards == [(2, 7)]
        assert here.notes.waits == ["interactive"]


@pytest.mark.parametrize("priority", ["interactive", "bulk"])
async def test_eight_concurrent_calls_make_one_forward(priority: Priority) -> None:
    async with scene() as here:
        await asyncio.gather(*(here.encode([f"question {n}"], priority=priority) for n in range(8)))
        assert here.words() == [[2] * 8]


async def test_calls_that_come_during_a_forward_share_the_next() -> None:
    async with scene() as here:
        first = await here.occupy()
        calls = [asyncio.create_task(here.encode([f"question {n}"])) for n in range(8)]
        await here.queued(8 * 4)
        here.net.gate.set()
        await asyncio.gather(first, *calls)
        assert here.words() == [[1], [2] * 8]


async def test_a_batch_gives_what_single_calls_give() -> None:
    texts = ["a", "b c", "a a a", ""]
    async with scene(budget=6) as here:
        together = await asyncio.gather(here.encode(texts), here.encode(texts[::-1]))
        single = np.concatenate([await here.encode([text]) for text in texts])
    np.testing.assert_array_equal(together[0], single)
    np.testing.assert_array_equal(together[1], single[::-1])


async def test_a_forward_keeps_to_its_budget_and_its_number_of_texts() -> None:
    async with scene(budget=12, most=3) as here:
        await here.encode(["a b", "c", "d", "e f", "g"])
        assert here.words() == [[2, 2], [1, 1, 1]]


async def test_no_forward_runs_for_a_caller_who_left() -> None:
    async with scene() as here:
        first = await here.occupy()
        left = asyncio.create_task(here.encode(["a", "b"]))
        stays = asyncio.create_task(here.encode(["c d e"]))
        await here.queued(11)
        left.cancel()
        await here.queued(5)
        here.net.gate.set()
        await asyncio.gather(first, stays)
        assert here.words() == [[1], [3]]
        assert here.notes.drops == [("gone", 2)]


async def test_a_caller_who_leaves_during_its_forward_spoils_nothing() -> None:
    async with scene() as here:
        first = await here.occupy()
        first.cancel()
        second = asyncio.create_task(here.encode(["a b"]))
        await here.queued(4)
        here.net.gate.set()
        assert (await second).shape == (1, 64)


async def test_tokens_in_a_forward_are_pending_and_not_queued() -> None:
    async with scene() as here:
        first = await here.occupy()
        waiting = asyncio.create_task(here.encode(["a b"]))
        await here.queued(4)
        assert here.batcher.pending_tokens == 4 + 3
        here.net.gate.set()
        await asyncio.gather(first, waiting)
        assert here.batcher.pending_tokens == 0


async def test_interactive_calls_overtake_bulk_ones() -> None:
    async with scene() as here:
        first = await here.occupy()
        bulk = asyncio.create_task(here.encode(["a b c"], priority="bulk"))
        await here.queued(5)
        quick = asyncio.create_task(here.encode(["d"]))
        await here.queued(8)
        here.net.gate.set()
        await asyncio.gather(first, bulk, quick)
        assert here.words() == [[1], [1], [3]]


async def test_a_full_queue_refuses_and_says_when_to_return() -> None:
    async with scene(limit=10) as here:
        first = await here.occupy()
        waiting = asyncio.create_task(here.encode(["a", "b"]))
        await here.queued(6)
        with pytest.raises(
            Overloaded, match="6 interactive tokens wait for the net counting, and 10 may"
        ) as before:
            await here.encode(["c d e"])
        # as if 10 tokens a second: 0.6 for the call that must leave, and up to 0.3 for what runs
        assert 0.75 <= before.value.retry_after <= 1.125
        here.net.gate.set()
        await asyncio.gather(first, waiting)
        assert here.notes.drops == [("full", 1)]
        await here.encode(["c d e"])


async def test_the_time_to_return_follows_the_measured_speed() -> None:
    async with scene(limit=10) as here:
        first = await here.occupy()
        await asyncio.sleep(0.05)
        here.net.gate.set()
        await first  # 3 tokens in 0.05 s or more: at most 60 tokens a second
        second = await here.occupy()
        waiting = asyncio.create_task(here.encode(["a", "b"]))
        await here.queued(6)
        with pytest.raises(Overloaded) as full:
            await here.encode(["c d e"])
        assert full.value.retry_after >= 1 / 60
        here.net.gate.set()
        await asyncio.gather(second, waiting)


@pytest.mark.parametrize("tokens", [5, 20, 40])
async def test_who_waits_as_long_as_said_is_accepted(tokens: int) -> None:
    async with lengths(budget=10, limit=40, pace=0.002) as (batcher, _):
        await batcher.submit([Measured(5)] * 8)  # so its speed is known
        running = asyncio.create_task(batcher.submit([Measured(5)] * 2))
        await asyncio.sleep(0.001)
        waiting = asyncio.create_task(batcher.submit([Measured(5)] * 8))
        await asyncio.sleep(0)
        with pytest.raises(Overloaded, match="40 interactive tokens wait") as full:
            await batcher.submit([Measured(tokens)])
        await asyncio.sleep(full.value.retry_after)
        assert (await batcher.submit([Measured(tokens)])).tolist() == [tokens]
        await asyncio.gather(running, waiting)


async def test_a_call_refused_before_it_is_tokenised_is_taken_to_be_like_those_that_wait() -> None:
    async with scene(limit=10) as here:
        first = await here.occupy()
        waiting = asyncio.create_task(here.encode(["a b c", "d e f"]))  # 5 tokens each
        await here.queued(10)
        with pytest.raises(Overloaded) as full:
            await here.encode(["a"] * 2)  # surely 2 tokens, likely 10
        assert full.value.retry_after >= 1.25
        here.net.gate.set()
        await asyncio.gather(first, waiting)


async def test_calls_beyond_those_that_will_fill_the_queue_are_not_even_tokenised() -> None:
    tokenised: list[str] = []
    async with scene(limit=20) as here:
        tokenize, held = here.net.tokenize, threading.Event()

        def slow(texts: Sequence[str], kind: Kind) -> list[list[int]]:
            tokenised.extend(texts)
            assert held.wait(10)
            return tokenize(texts, kind)

        first = await here.occupy()
        waiting = asyncio.create_task(here.encode(["a b c"]))
        await here.queued(5)
        here.net.tokenize = slow  # type: ignore[method-assign]
        coming = [asyncio.create_task(here.encode([f"d e {n}"])) for n in range(3)]
        await asyncio.sleep(0)
        with pytest.raises(Overloaded, match=r"5 interactive tokens wait .* 20 may"):
            await here.encode(["f"])
        held.set()
        here.net.gate.set()
        await asyncio.gather(first, waiting, *coming)
        assert "f" not in tokenised


async def test_seconds_until_more_tokens_would_be_done_count_what_runs_and_waits() -> None:
    async with scene(limit=10) as here:
        assert here.batcher.seconds(5) == pytest.approx(0.5)  # nothing measured: as if 10 tokens a second
        first = await here.occupy()
        assert 0.5 <= here.batcher.seconds(5) <= 0.8
        waiting = asyncio.create_task(here.encode(["a", "b"]))
        await here.queued(6)
        assert 0.6 <= here.batcher.seconds(0) <= 0.9
        assert here.batcher.seconds(5) - here.batcher.seconds(0) == pytest.approx(0.5, abs=0.01)
        here.net.gate.set()
        await asyncio.gather(first, waiting)


async def test_a_call_larger_than_the_queue_is_run_if_it_is_alone_in_its_lane() -> None:
    async with scene(limit=10) as here:
        first = await here.occupy()
        large = asyncio.create_task(here.encode(["a"] * 11, priority="bulk"))
        await here.queued(33)
        with pytest.raises(Overloaded, match=r"33 bulk tokens wait .* 10 may \(WINNOW_QUEUED_TOKENS\)"):
            await here.encode(["a"], priority="bulk")
        question = asyncio.create_task(here.encode(["a b"]))
        await here.queued(37)
        here.net.gate.set()
        assert (await large).shape == (11, 64)
        assert (await question).shape == (1, 64)
        await first


async def test_a_deadline_takes_a_call_off_the_queue() -> None:
    async with scene() as here:
        first = await here.occupy()
        with pytest.raises(TimeoutError, match="the deadline passed before the net counting"):
            await here.encode(["late"], deadline=time.monotonic() + 0.01)
        assert here.batcher.queued_tokens == 0
        assert here.notes.drops == [("late", 1)]
        here.net.gate.set()
        await first
        with pytest.raises(TimeoutError):
            await here.encode(["too late"], deadline=time.monotonic() - 1)
        assert here.words() == [[1]]


def failing(net: CountingNet, error: Exception) -> Callable[[list[list[int]]], object]:
    """A forward that raises on texts of two words."""
    forward = net.forward

    def forward_or_raise(tokens: list[list[int]]) -> object:
        rows = forward(tokens)
        if any(len(ids) == 4 for ids in tokens):
            raise error
        return rows

    return forward_or_raise


async def test_an_error_of_a_net_reaches_its_batch_and_nobody_else(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with scene(budget=8) as here:
        error = RuntimeError("out of tune")
        monkeypatch.setattr(here.net, "forward", failing(here.net, error))
        first = await here.occupy()
        calls = [
            asyncio.create_task(here.encode(texts))
            for texts in (["a b"], ["c d", "e f g h"], ["i j k l m n"])
        ]
        await here.queued(4 + 4 + 6 + 8)
        here.net.gate.set()
        _, *failed, spared = await asyncio.gather(first, *calls, return_exceptions=True)
        for each in failed:
            assert isinstance(each, NetFailed)
            assert str(each) == "the net counting failed: out of tune"
            assert each.__cause__ is error
        assert isinstance(spared, np.ndarray)
        assert here.notes.drops == [("failed", 1)]
        assert [record.levelno for record in caplog.records] == [logging.ERROR]
        await here.encode(["still", "served"])


def small(net: CountingNet, tokens: int) -> Callable[[list[list[int]]], object]:
    """A forward with memory for so many padded tokens."""
    forward = net.forward

    def forward_or_raise(items: list[list[int]]) -> object:
        rows = forward(items)
        if len(items) * max(map(len, items)) > tokens:
            raise MemoryError("no room")
        return rows

    return forward_or_raise


async def test_out_of_memory_halves_the_batch_and_what_follows(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = ["a b", "c d", "e f", "g h", "i"]
    async with scene(budget=20) as here:
        expected = await here.encode(texts)
        monkeypatch.setattr(here.net, "forward", small(here.net, tokens=12))
        here.net.batches.clear()
        np.testing.assert_array_equal(await here.encode(texts), expected)
        assert here.words() == [[1, 2, 2, 2, 2], [1, 2], [2, 2, 2]]
        assert (here.batcher.budget, here.notes.halvings) == (10, 1)
        here.net.batches.clear()
        np.testing.assert_array_equal(await here.encode(texts), expected)
        assert here.words() == [[1, 2], [2, 2], [2]]
        assert here.notes.halvings == 1
        assert [record.levelno for record in caplog.records] == [logging.WARNING]
        assert "has at most 10 tokens: no room" in caplog.text


async def test_a_half_that_fails_too_fails_its_own_calls_only(monkeypatch: pytest.MonkeyPatch) -> None:
    async with scene(budget=24) as here:
        monkeypatch.setattr(here.net, "forward", small(here.net, tokens=8))
        first = await here.occupy()
        calls = [asyncio.create_task(here.encode(each)) for each in (["a"], ["b c"], ["d e f g", "h i j k"])]
        await here.queued(3 + 4 + 12)
        here.net.gate.set()
        _, *spared, failed = await asyncio.gather(first, *calls, return_exceptions=True)
        assert here.words() == [[1], [1, 2, 4, 4], [1, 2], [4, 4]]
        assert all(isinstance(each, np.ndarray) for each in spared)
        assert isinstance(failed, NetFailed)
        assert isinstance(failed.__cause__, MemoryError)
        assert here.notes.halvings == 1


async def test_one_text_that_is_too_much_fails_without_another_try(monkeypatch: pytest.MonkeyPatch) -> None:
    async with scene(budget=20) as here:
        monkeypatch.setattr(here.net, "forward", small(here.net, tokens=4))
        with pytest.raises(NetFailed, match="no room"):
            await here.encode(["a b c"])
        assert here.words() == [[3]]
        assert (here.batcher.budget, here.notes.halvings) == (20, 0)


async def test_padding_is_counted_beside_tokens() -> None:
    async with scene() as here:
        await here.encode(["a b c", "d"])
        assert here.notes.forwards == [(2, 5 + 3)]
        assert here.notes.padding == 2


async def test_a_net_is_tuned_in_the_thread_of_its_forwards() -> None:
    threads: list[str] = []
    net, workers = CountingNet(), Workers()
    batcher = Batcher(net, workers, budget=1000, most=7, limit=100, name="tuned")

    def measure(measured: Net, most: int) -> Budget:
        threads.append(threading.current_thread().name)
        assert (measured, most) == (net, 7)
        return Budget(tokens=8, per_second=50.0)

    await batcher.tune(measure)
    assert threads[0].startswith("net")
    assert batcher.budget == 8
    assert batcher.seconds(25) == pytest.approx(0.5)
    await batcher.start()
    await batcher.encode(["a b", "c d", "e f"])
    await batcher.close()
    workers.close()
    assert [len(batch) for batch in net.batches] == [2, 1]


async def test_only_forwards_that_left_others_waiting_change_the_speed_of_a_tuned_net() -> None:
    async with scene(budget=8, limit=1000) as here:
        await here.batcher.tune(lambda net, most: Budget(tokens=8, per_second=50.0))
        first = await here.occupy()
        calls = [asyncio.create_task(here.encode(["a b"])) for _ in range(2)]
        await here.queued(8)
        here.net.gate.set()
        await asyncio.gather(first, *calls)
        assert here.words() == [[1], [2, 2]]
        assert here.batcher.tokens_per_second == pytest.approx(50)  # the first began with nobody behind it
        await here.encode(["a b"] * 4)
        assert here.batcher.tokens_per_second > 51


async def test_a_net_that_gives_too_few_rows_fails_its_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    async with scene() as here:
        monkeypatch.setattr(here.net, "forward", lambda tokens: np.zeros((1, 64), np.float32))
        with pytest.raises(NetFailed, match="1 rows for 2 texts"):
            await here.encode(["a", "b"])


async def test_closing_ends_waiting_calls_and_finishes_the_running_one() -> None:
    async with scene() as here:
        first = await here.occupy()
        waiting = asyncio.create_task(here.encode(["waiting"]))
        await here.queued(3)
        closing = asyncio.create_task(here.batcher.close())
        await asyncio.sleep(0)
        here.net.gate.set()
        await closing
        assert isinstance(await first, np.ndarray)
        for call in (waiting, here.encode(["too late"])):
            with pytest.raises(Closed, match="the net counting"):
                await call


async def test_many_calls_of_which_some_leave_all_get_their_own_rows() -> None:
    random = np.random.default_rng(7)
    async with scene(budget=40, most=8, limit=100_000) as here:
        texts = [
            [" ".join("abcdefgh"[: 1 + n % 8]) for n in random.integers(0, 99, 1 + i % 5)] for i in range(200)
        ]
        lanes: list[Priority] = ["interactive", "bulk"]
        calls = [
            asyncio.create_task(here.encode(each, priority=lanes[i % 2])) for i, each in enumerate(texts)
        ]
        for number in range(0, 200, 3):
            await asyncio.sleep(0)
            calls[number].cancel()
        answers = await asyncio.gather(*calls, return_exceptions=True)
        assert here.batcher.queued_tokens == 0
    for each, answer in zip(texts, answers, strict=True):
        if not isinstance(answer, asyncio.CancelledError):
            np.testing.assert_array_equal(answer, WordOverlapEncoder().encode(each))
    assert sum(isinstance(answer, np.ndarray) for answer in answers) >= 133


async def test_no_text_is_no_call() -> None:
    async with scene() as here:
        with pytest.raises(ValueError, match="no text"):
            await here.encode([])


class Measured:
    """Any object with a length in tokens; a forward says the length of each."""

    def __init__(self, tokens: int) -> None:
        self.tokens = tokens

    def __len__(self) -> int:
        return self.tokens


class Lengths:
    """A net of such objects, and of texts that become such."""

    def __init__(self, pace: float) -> None:
        self.batches: list[list[int]] = []
        self.pace = pace  # seconds a token

    def tokenize(self, texts: Sequence[str], kind: str) -> list[Measured]:
        return [Measured(len(text)) for text in texts]

    def forward(self, items: Sequence[Measured]) -> NDArray[np.int64]:
        self.batches.append([len(item) for item in items])
        time.sleep(self.pace * sum(self.batches[-1]))
        return np.array(self.batches[-1])


@asynccontextmanager
async def lengths(
    budget: int = 1000, limit: int = 1000, pace: float = 0.0
) -> AsyncIterator[tuple[Batcher, Lengths]]:
    net, workers = Lengths(pace), Workers(1)
    batcher = Batcher(net, workers, budget=budget, most=64, limit=limit, name="lengths")
    await batcher.start()
    try:
        yield batcher, net
    finally:
        await batcher.close()
        workers.close()


async def test_items_of_the_nets_own_are_batched_as_they_are() -> None:
    async with lengths(budget=10) as (batcher, net):
        rows = await batcher.submit([Measured(5), Measured(9), Measured(5)])
        assert rows.tolist() == [5, 9, 5]
        assert net.batches == [[5, 5], [9]]


async def test_items_and_texts_share_a_forward() -> None:
    async with lengths() as (batcher, net):
        encoding = asyncio.create_task(batcher.encode(["four"]))
        await asyncio.sleep(0)  # it is being tokenised, which the owner waits for
        assert (await batcher.submit([Measured(3)])).tolist() == [3]
        assert (await encoding).tolist() == [4]
        assert net.batches == [[3, 4]]


async def test_what_is_submitted_is_bounded_and_late_like_what_is_encoded() -> None:
    async with lengths(limit=10) as (batcher, net):
        with pytest.raises(TimeoutError, match="the deadline passed before the net lengths"):
            await batcher.submit([Measured(1)], deadline=time.monotonic() - 1)
        with pytest.raises(ValueError, match="no item"):
            await batcher.submit([])
        assert (net.batches, batcher.queued_tokens) == ([], 0)
    with pytest.raises(Closed):
        await batcher.submit([Measured(1)])
