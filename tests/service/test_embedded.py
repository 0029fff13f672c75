"""The keeper of the indexer process, with small programs in the indexer's place."""

import asyncio
import os
import sys
from pathlib import Path

import pytest

from service import embedded
from service.embedded import Embedded

# Says its process number and waits for the end of its input, as the indexer does.
OBEDIENT = "import os, sys; open(sys.argv[1], 'a').write(f'{os.getpid()}\\n'); sys.stdin.read()"
DEAF = "import os, sys, time; open(sys.argv[1], 'a').write(f'{os.getpid()}\\n'); time.sleep(60)"


def program(source: str, said: Path) -> list[str]:
    return [sys.executable, "-S", "-c", source, str(said)]


async def numbers(said: Path, count: int) -> list[int]:
    async with asyncio.timeout(10):
        while not said.exists() or len(said.read_text().split("\n")) <= count:
            await asyncio.sleep(0.01)
    return [int(line) for line in said.read_text().split()]


def alive(number: int) -> bool:
    try:
        os.kill(number, 0)
    except ProcessLookupError:
        return False
    return True


async def test_it_runs_in_a_session_of_its_own_until_it_is_stopped(tmp_path: Path):
    keeper = Embedded(program(OBEDIENT, tmp_path / "said"))
    keeper.start()
    (number,) = await numbers(tmp_path / "said", 1)
    assert keeper.running
    assert os.getsid(number) == number, "so that Ctrl-C does not reach it"
    await keeper.stop()
    assert not alive(number)
    assert not keeper.running


async def test_it_is_started_again_when_it_dies(tmp_path: Path):
    keeper = Embedded(program(OBEDIENT, tmp_path / "said"), first_pause=0.01)
    keeper.start()
    (first,) = await numbers(tmp_path / "said", 1)
    os.kill(first, 9)
    _, second = await numbers(tmp_path / "said", 2)
    assert second != first
    assert keeper.restarts == 1
    await keeper.stop()


async def test_one_that_keeps_dying_is_started_ever_more_slowly(tmp_path: Path):
    short = "import sys; open(sys.argv[1], 'a').write('1\\n')"
    keeper = Embedded(program(short, tmp_path / "said"), first_pause=0.1)
    keeper.start()
    await numbers(tmp_path / "said", 1)
    await asyncio.sleep(0.5)
    await keeper.stop()
    assert len((tmp_path / "said").read_text().split()) <= 4, "0, 0.1, 0.3, 0.7 s"


async def test_one_that_does_not_listen_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(embedded, "STOP_SECONDS", 0.1)
    keeper = Embedded(program(DEAF, tmp_path / "said"))
    keeper.start()
    (number,) = await numbers(tmp_path / "said", 1)
    await keeper.stop()
    assert not alive(number)


async def test_a_program_that_is_not_there_is_tried_again(caplog: pytest.LogCaptureFixture):
    keeper = Embedded(["/no/such/program"], first_pause=0.01)
    keeper.start()
    async with asyncio.timeout(10):
        while keeper.restarts < 2:
            await asyncio.sleep(0.01)
    await keeper.stop()
    assert not keeper.running
    assert "could not be started" in caplog.text


async def test_stopping_what_was_never_started_is_nothing():
    await Embedded(["true"]).stop()
