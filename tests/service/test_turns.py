import asyncio
import time

import pytest

from service.errors import DeadlineError
from service.turns import Turns

FAR = 1e9


async def test_as_many_as_may_go_on_and_the_others_follow_in_their_order():
    turns, going, begun = Turns(2), asyncio.Event(), []

    async def one(name: str) -> None:
        async with turns.taken(FAR):
            begun.append(name)
            await going.wait()

    tasks = [asyncio.create_task(one(name)) for name in "abcd"]
    await asyncio.sleep(0)
    assert begun == ["a", "b"]
    going.set()
    await asyncio.gather(*tasks)
    assert begun == ["a", "b", "c", "d"]


async def test_whoever_waits_too_long_hears_so_and_takes_no_turn():
    turns = Turns(1)
    async with turns.taken(FAR):
        with pytest.raises(DeadlineError, match="before it was this search's turn"):
            async with turns.taken(time.monotonic() + 0.01):
                pass
    async with turns.taken(time.monotonic() + 0.01):
        pass


async def test_who_leaves_while_waiting_or_fails_keeps_no_turn():
    turns = Turns(1)

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
    turns = Turns(1, told.append)

    async def one() -> None:
        async with turns.taken(FAR):
            await asyncio.sleep(0.05)

    await asyncio.gather(one(), one())
    assert told[0] < 0.05 <= told[1]
