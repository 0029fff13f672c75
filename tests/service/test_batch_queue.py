import asyncio

import numpy as np
import pytest

from service.batch_queue import SHARE, BatchQueue, Call, Priority


@pytest.fixture
async def loop() -> asyncio.AbstractEventLoop:
    return asyncio.get_running_loop()


def call(
    loop: asyncio.AbstractEventLoop,
    *lengths: int,
    priority: Priority = "interactive",
    deadline: float = np.inf,
) -> Call:
    """A call of texts with so many tokens."""
    return Call(priority, deadline, {i: [1] * n for i, n in enumerate(lengths)}, loop.create_future())


def taken(queue: BatchQueue, *calls: Call) -> list[tuple[int, int]]:
    """The next batch as (number of the call, position of the text)."""
    return [(calls.index(entry.call), entry.position) for entry in queue.take()]


def test_calls_share_a_batch(loop: asyncio.AbstractEventLoop) -> None:
    queue = BatchQueue(budget=100, most=10)
    calls = [call(loop, 3, 5), call(loop, 4)]
    for each in calls:
        queue.add(each)
    assert queue.tokens == 12
    assert taken(queue, *calls) == [(0, 0), (1, 0), (0, 1)]
    assert queue.tokens == 0
    assert queue.take() == []


def test_a_batch_holds_the_text_whose_turn_it_is_and_those_of_its_length(
    loop: asyncio.AbstractEventLoop,
) -> None:
    queue = BatchQueue(budget=1000, most=10)
    calls = [call(loop, 200), call(loop, 2), call(loop, 210), call(loop, 3)]
    for each in calls:
        queue.add(each)
    assert taken(queue, *calls) == [(0, 0), (2, 0)]
    assert taken(queue, *calls) == [(1, 0), (3, 0)]


def test_interactive_calls_overtake_bulk_ones(loop: asyncio.AbstractEventLoop) -> None:
    queue = BatchQueue(budget=4, most=10)
    calls = [call(loop, 4, priority="bulk"), call(loop, 4)]
    for each in calls:
        queue.add(each)
    assert [taken(queue, *calls), taken(queue, *calls)] == [[(1, 0)], [(0, 0)]]


def test_bulk_work_gets_its_share_however_many_interactive_calls_come(
    loop: asyncio.AbstractEventLoop,
) -> None:
    queue = BatchQueue(budget=4, most=10)
    queue.add(call(loop, *[4] * 100, priority="bulk"))
    queue.add(call(loop, *[4] * 100))
    lanes = [queue.take()[0].call.priority for _ in range(3 * SHARE)]
    assert lanes == (["interactive"] * (SHARE - 1) + ["bulk"]) * 3


def test_a_small_call_does_not_wait_for_all_of_a_large_one(loop: asyncio.AbstractEventLoop) -> None:
    queue = BatchQueue(budget=4, most=8)
    calls = [call(loop, *[4] * 9), call(loop, 4)]
    for each in calls:
        queue.add(each)
    assert [taken(queue, *calls) for _ in range(3)] == [[(0, 0)], [(1, 0)], [(0, 1)]]


def test_calls_that_a_batch_could_hold_are_served_as_they_came(loop: asyncio.AbstractEventLoop) -> None:
    queue = BatchQueue(budget=4, most=8)
    calls = [call(loop, 4, 4), call(loop, 4, 4)]
    for each in calls:
        queue.add(each)
    assert [taken(queue, *calls) for _ in range(4)] == [[(0, 0)], [(0, 1)], [(1, 0)], [(1, 1)]]


def test_a_removed_call_gives_its_tokens_back(loop: asyncio.AbstractEventLoop) -> None:
    queue = BatchQueue(budget=4, most=10)
    gone = call(loop, 4, 4, 4)
    queue.add(gone)
    queue.take()
    assert queue.remove(gone) == 2
    assert queue.tokens == 0
    assert queue.remove(gone) == 0
    assert queue.take() == []


def test_rows_come_back_in_the_order_of_the_texts(loop: asyncio.AbstractEventLoop) -> None:
    texts = call(loop, 1, 1, 1)
    texts.deliver([2, 0], np.array([[2.0], [0.0]], np.float32))
    assert not texts.result.done()
    texts.deliver([1], np.array([[1.0]], np.float32))
    assert texts.result.result().tolist() == [[0.0], [1.0], [2.0]]


def test_a_call_is_gone_when_it_is_late_or_nobody_waits(loop: asyncio.AbstractEventLoop) -> None:
    assert not call(loop, 1).gone()
    assert call(loop, 1, deadline=0.0).gone()
    left = call(loop, 1)
    left.result.cancel()
    assert left.gone()
    assert not left.failed()


def test_a_call_counts_in_full_until_the_last_of_it_has_left(loop: asyncio.AbstractEventLoop) -> None:
    queue = BatchQueue(budget=4, most=1)
    first, second = call(loop, 4, 4, 4), call(loop, 2)
    queue.add(first)
    queue.add(second)
    counts = [(queue.tokens, queue.held("interactive"))]
    for _ in range(4):
        queue.take()
        counts.append((queue.tokens, queue.held("interactive")))
    assert counts == [(14, 14), (10, 14), (8, 12), (4, 12), (0, 0)]
    queue.add(call(loop, 5, priority="bulk"))
    assert (queue.held("interactive"), queue.held("bulk")) == (0, 5)


def test_what_passes_before_there_is_room(loop: asyncio.AbstractEventLoop) -> None:
    """Calls of 2, 6 and 6 tokens take turns: the first has left after three rounds of 2, the others after
    all 14.
    """
    queue = BatchQueue(budget=100, most=10)
    for lengths in ((2,), (2, 2, 2), (2, 2, 2)):
        queue.add(call(loop, *lengths))
    assert queue.passing("interactive", 1) == 6
    assert queue.passing("interactive", 2) == 6
    assert queue.passing("interactive", 3) == 14
    assert queue.passing("interactive", 14) == 14
    assert queue.passing("interactive", 20) == 20, "what is not in the lane yet comes on top"
    assert queue.passing("bulk", 5) == 5
