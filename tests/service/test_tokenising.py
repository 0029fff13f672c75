import asyncio
import threading
from collections.abc import AsyncIterator, Sequence

import pytest

from service.tokenising import FEW, Tokenising
from service.workers import Workers


class Letters:
    """A text's items are its letters; capitals are not known. What each job was asked is written down."""

    def __init__(self) -> None:
        self.threads: list[int] = []
        self.asked: list[Sequence[str]] = []
        self.open = threading.Event()
        self.open.set()

    def __call__(self, texts: Sequence[str], kind: str) -> list[str]:
        assert self.open.wait(10)
        self.threads.append(threading.get_ident())
        self.asked.append(texts)
        if any(text != text.lower() for text in texts):
            raise ValueError(f"no capitals: {texts}")
        return list(texts)


@pytest.fixture
async def workers() -> AsyncIterator[Workers]:
    pool = Workers(4)
    yield pool
    pool.close()


async def test_calls_that_come_together_have_each_their_own_items(workers: Workers) -> None:
    letters = Letters()
    tokenising = Tokenising(letters, workers)
    texts = [[f"text {number}"] for number in range(20)]
    found = await asyncio.gather(*(tokenising.items(each, "query") for each in texts))
    assert found == texts
    assert len(set(letters.threads)) == 1, "one job for all"


async def test_what_one_call_raises_is_raised_there_and_nowhere_else(workers: Workers) -> None:
    tokenising = Tokenising(Letters(), workers)
    calls = (tokenising.items(each, "query") for each in (["a"], ["B"], ["c"]))
    first, second, third = await asyncio.gather(*calls, return_exceptions=True)
    assert (first, third) == (["a"], ["c"])
    assert isinstance(second, ValueError)
    assert await tokenising.items(["d"], "query") == ["d"]


async def test_many_texts_keep_nobody_waiting(workers: Workers) -> None:
    letters = Letters()
    tokenising = Tokenising(letters, workers)
    letters.open.clear()
    many = asyncio.create_task(tokenising.items(["x"] * (FEW + 1), "document"))
    few = asyncio.create_task(tokenising.items(["y"], "query"))
    await asyncio.sleep(0.01)
    letters.open.set()
    assert await few == ["y"]
    assert await many == ["x"] * (FEW + 1)
    assert sorted(map(len, letters.asked)) == [1, FEW + 1]


async def test_who_goes_is_not_tokenised_for(workers: Workers) -> None:
    letters = Letters()
    tokenising = Tokenising(letters, workers)
    letters.open.clear()
    first = asyncio.create_task(tokenising.items(["a"], "query"))
    await asyncio.sleep(0.01)
    gone, stays = (asyncio.create_task(tokenising.items([each], "query")) for each in "bc")
    await asyncio.sleep(0.01)
    gone.cancel()
    await asyncio.sleep(0)
    letters.open.set()
    assert [await first, await stays] == [["a"], ["c"]]
    assert letters.asked == [["a"], ["c"]]


async def test_after_the_end_callers_are_told(workers: Workers) -> None:
    tokenising = Tokenising(Letters(), workers)
    workers.close()
    with pytest.raises(RuntimeError, match="shutdown"):
        await tokenising.items(["a"], "query")
