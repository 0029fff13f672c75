"""Ten times as many searches as can be answered: the others hear when to come back, and nothing piles up."""

import asyncio
import json
import math
from pathlib import Path

import httpx
import pytest

from benchmarks.endpoint_servers import winnow
from benchmarks.load import Closed, Open, Outcome, drive, measure, percentiles
from benchmarks.memory import memory, slope
from benchmarks.search_loads import PATH, index_documents
from benchmarks.server import running
from indexer.document import Document
from models.roles import loader
from service.commands.encoding_cache import cache_home
from service.state import State
from tests.nets import WORDS, SlowEncoder, loading, word_overlap
from tests.serving import serving

TIMES = 10
REQUESTS = 4
OK, TOO_MANY = 200, 429
DOCUMENTS = [
    Document(id=f"{a}-{b}", text=f"The {a} and the {b}.") for a in WORDS[7:] for b in WORDS[7:] if a < b
]
BODIES = [json.dumps({"query": document.text}) for document in DOCUMENTS]


async def most_open(state: State) -> None:
    """Require, until cancelled, that no more requests are worked on than may be."""
    while True:
        lines = state.metrics.exposition().splitlines()
        (line,) = (each for each in lines if each.startswith(b"winnow_open_requests "))
        assert float(line.split()[1]) <= REQUESTS
        await asyncio.sleep(0.02)


def in_good_order(outcome: Outcome) -> None:
    """Answered or refused, and whoever is refused hears when to come back."""
    assert outcome.statuses() == [OK, TOO_MANY]
    for answer in outcome.answers:
        assert (answer.status == TOO_MANY) == (answer.retry_after is not None)
        assert answer.retry_after is None or 1 <= answer.retry_after < math.inf


async def test_ten_times_too_many_searches_are_refused_in_good_order(tmp_path: Path):
    index_documents(tmp_path, DOCUMENTS, word_overlap)
    given = {"requests": REQUESTS, "batch_texts": 1, "batch_tokens": 1000, "threads": 1, "timeout_ms": 60_000}
    with serving(tmp_path, load=loading(dense=SlowEncoder()), **given) as (url, state):
        async with httpx.AsyncClient(base_url=url, timeout=60) as client:
            while (await client.get("/readyz")).status_code != OK:
                await asyncio.sleep(0.05)
            port = httpx.URL(url).port
            assert port is not None
            busy = await drive(Closed(port, PATH, BODIES, REQUESTS, 1.0, warm=0.2))
            watching = asyncio.create_task(most_open(state))
            outcome = await drive(Open(port, PATH, BODIES, TIMES * max(1, len(busy.answers)), 2.0))
            assert not watching.done()
            watching.cancel()
            in_good_order(outcome)
            assert (await client.post(PATH, json=json.loads(BODIES[0]))).status_code == OK, "it is over"


async def test_a_burst_is_let_in_as_far_as_it_is_done_in_time(tmp_path: Path):
    """A search takes 50 ms; behind 14 others it may take a second, since 6 go on at once."""
    index_documents(tmp_path, DOCUMENTS, word_overlap)
    given = {"queue_ms": 1000, "batch_texts": 1, "batch_tokens": 1000, "threads": 1, "timeout_ms": 60_000}
    with serving(tmp_path, load=loading(dense=SlowEncoder()), **given) as (url, _):
        async with httpx.AsyncClient(base_url=url, timeout=60) as client:

            async def ask(body: str) -> httpx.Response:
                return await client.post(PATH, json=json.loads(body))

            for body in BODIES[:3]:
                assert (await ask(body)).status_code == OK
            answers = await asyncio.gather(*map(ask, (BODIES * 32)[:32]))
            assert {answer.status_code for answer in answers} == {OK, TOO_MANY}
            refused = [answer.json()["detail"] for answer in answers if answer.status_code == TOO_MANY]
            assert all("WINNOW_QUEUE_MS" in said for said in refused), refused


@pytest.mark.slow  # two minutes
def test_a_minute_of_ten_times_too_much_takes_no_memory(tmp_path: Path):
    """With the nets that are shipped, in a process of its own. Prints what docs/reliability.md shows."""
    index_documents(tmp_path, DOCUMENTS, loader(cache_home() / "models"))
    service = winnow(str(tmp_path))
    with running(service.command, service.probe) as server:
        busy = measure(Closed(server.port, PATH, BODIES, 32, 10.0))
        rate = len(busy.answers) / 10.0
        with memory(server.pid) as sizes:
            outcome = measure(Open(server.port, PATH, BODIES, TIMES * rate, 60.0))
        in_good_order(outcome)
        assert server.client.get("/readyz").status_code == OK
    for status in (OK, TOO_MANY):
        p50, p99 = percentiles(outcome.milliseconds(status), 50, 99)
        print(f"{status}: {len(outcome.milliseconds(status)) / 60:.1f}/s, p50 {p50:.0f} ms, p99 {p99:.0f} ms")
    print(f"{rate:.1f}/s sustained; {sizes[0]:.0f} MiB before, {max(sizes):.0f} at most")
    assert slope(sizes) < 20, "MiB a minute in the second half"
