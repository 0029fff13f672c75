import asyncio
import threading
from collections.abc import Iterator

import pytest

from service.workers import Workers


@pytest.fixture
def workers() -> Iterator[Workers]:
    workers = Workers(threads=1)
    yield workers
    workers.close()


async def test_work_runs_in_a_thread_and_gives_its_result(workers: Workers) -> None:
    assert await workers.run(divmod, 7, 2) == (3, 1)
    assert await workers.run(threading.get_ident) != threading.get_ident()


async def test_what_work_raises_is_raised(workers: Workers) -> None:
    with pytest.raises(ZeroDivisionError):
        await workers.run(divmod, 7, 0)


async def test_the_loop_stays_free_while_work_runs(workers: Workers) -> None:
    done = threading.Event()
    running = asyncio.create_task(workers.run(done.wait, 10))
    await asyncio.sleep(0)
    done.set()  # reached only because the wait above does not hold the loop
    assert await running


async def test_queued_work_whose_caller_left_never_runs(workers: Workers) -> None:
    done, ran = threading.Event(), threading.Event()
    first = asyncio.create_task(workers.run(done.wait, 10))
    second = asyncio.create_task(workers.run(ran.set))
    await asyncio.sleep(0)
    second.cancel()
    await asyncio.wait([second])
    done.set()
    await first
    await workers.run(int)
    assert not ran.is_set()
