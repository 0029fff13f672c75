import asyncio
import math
import time

import pytest

from service.errors import DeadlineError
from service.turns import Turns
from tests.clocks import Clock

FAR = 1e9


async def held(turns: Turns, going: asyncio.Event, name: str, begun: list[str]) -> None:
    """Have a turn until `going` is set, and say in `begun` when it begins."""
    async with turns.taken(FAR):
        begun.append(name)
        await going.wait()


async def test_as_many_as_may_go_on_and_the_others_follow_in_their_order():
    turns, going, begun = Turns(2, a_thread=1), asyncio.Event(), list[str]()
    tasks = [asyncio.create_task(held(turns, going, name, begun)) for name in "abcd"]
    await asyncio.sleep(0)
    assert begun == ["a", "b"]
    going.set()
    await asyncio.gather(*tasks)
    assert begun == ["a", "b", "c", "d"]


async def test_whoever_waits_too_long_hears_so_and_takes_no_turn():
    turns = Turns(1, a_thread=1)
    async with turns.taken(FAR):
        with pytest.raises(DeadlineError, match="before it was this search's turn"):
            async with turns.taken(time.monotonic() + 0.01):
                pass
    async with turns.taken(time.monotonic() + 0.01):
        pass


async def test_who_leaves_while_waiting_or_fails_keeps_no_turn():
    turns = Turns(1, a_thread=1)

    async def fail() -> None:
        async with turns.taken(FAR):
            waiting = asyncio.create_task(turns.taken(FAR).__aenter__())
            await asyncio.sleep(0)
            waiting.cancel()
            await asyncio.wait([waiting])
            raise KeyError

    with pytest.raises(KeyError):
        await fail()
    async with turns.taken(time.monotonic() + 0.01):
        pass


async def test_how_long_each_waited_is_told():
    told: list[float] = []
    turns = Turns(1, waited=told.append, a_thread=1)

    async def one() -> None:
        async with turns.taken(FAR):
            await asyncio.sleep(0.05)

    await asyncio.gather(one(), one())
    assert told[0] < 0.05 <= told[1]


async def tenths(clock: Clock, longest: float, a_thread: int = 2) -> Turns:
    """Turns of one thread, each of which took a tenth of a second of late."""
    turns = Turns(1, longest, a_thread=a_thread, clock=clock)
    async with turns.taken(math.inf):
        clock.now += 0.1
    return turns


async def test_it_is_full_when_those_before_another_and_those_beside_it_take_too_long():
    turns = await tenths(Clock(), longest=0.55)
    assert not turns.full(3), "3 before it, 2 turns: 0.5 s"
    assert turns.full(4), "0.6 s"


async def test_it_is_never_full_while_a_turn_is_free_or_nothing_is_known():
    turns = await tenths(Clock(), longest=0.001)
    assert not turns.full(1)
    assert turns.full(2)
    assert not Turns(1, 0.001).full(1000), "no search was done yet"


async def test_searches_that_came_together_count_each():
    turns = await tenths(Clock(), longest=0.55)
    asked = [asyncio.create_task(turns.taken(math.inf).__aenter__()) for _ in range(4)]
    await asyncio.sleep(0)
    assert turns.full(1), "one request with four searches"
    for each in asked:
        each.cancel()
    await asyncio.wait(asked)


async def test_whoever_had_no_turn_makes_nobody_faster():
    clock = Clock()
    turns = await tenths(clock, longest=0.55)
    async with turns.taken(FAR), turns.taken(FAR):
        for _ in range(50):
            with pytest.raises(DeadlineError):
                await turns.taken(time.monotonic()).__aenter__()
        clock.now += 0.2
    assert turns.full(4), "three in 0.3 s, and not 53"


async def test_those_that_come_together_leave_a_turn_to_one_that_comes_alone():
    turns = await tenths(Clock(), longest=0.001, a_thread=3)
    going, begun = asyncio.Event(), list[str]()

    async def one(name: str) -> None:
        async with turns.one_of_several(FAR):
            await held(turns, going, name, begun)

    tasks = [asyncio.create_task(one(name)) for name in "abcdef"]
    await asyncio.sleep(0)
    assert not turns.full(1), "or it would not be let in"
    tasks.append(asyncio.create_task(held(turns, going, "z", begun)))
    await asyncio.sleep(0)
    assert begun == ["a", "b", "z"]
    assert turns.full(1), "now all have one"
    going.set()
    await asyncio.gather(*tasks)
    assert begun == ["a", "b", "z", "c", "d", "e", "f"]


async def test_one_of_several_may_wait_for_too_long_too():
    turns = Turns(1, a_thread=1)
    async with turns.one_of_several(FAR):
        with pytest.raises(DeadlineError, match="before it was this search's turn"):
            async with turns.one_of_several(time.monotonic() + 0.01):
                pass
